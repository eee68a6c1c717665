import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Stdio, Terminal } from "effect"
import * as Screen from "../../src/cli/Screen.ts"

/** What a screen shows for a script, on a terminal 12 columns wide or elsewhere. */
const shown = (isTerminal: boolean, script: (screen: Screen.Screen) => Effect.Effect<void>, columns = 12) =>
  Effect.gen(function*() {
    let output = ""
    const log = (text: string) => { output += `${text}\n` }
    const console = Object.assign(Object.create(globalThis.console), { log })
    yield* Effect.scoped(Effect.flatMap(Screen.make, script)).pipe(
      Effect.provideService(Console.Console, console),
      Effect.provide(Stdio.layerTest({ stdoutIsTerminal: Effect.succeed(isTerminal) })),
      Effect.provideService(Terminal.Terminal, Terminal.make({
        columns: Effect.succeed(columns), rows: Effect.succeed(5), size: Effect.die("unused"),
        readInput: Effect.die("unused"), readLine: Effect.die("unused"),
        display: (text) => Effect.sync(() => { output += text })
      }))
    )
    return output
  })

const script = (screen: Screen.Screen) =>
  Effect.gen(function*() {
    yield* screen.status("one █ of many columns")
    yield* screen.status("two")
    yield* screen.print("kept")
    yield* screen.print("also")
    yield* screen.write("te\u001Bxt\n")
    yield* screen.status("last")
  })

describe("Screen", () => {
  it.effect("writes one line over on a terminal, clears it before lines that stay, and at the end", () =>
    Effect.gen(function*() {
      const clear = "\r\u001B[2K"
      assert.strictEqual(
        yield* shown(true, script),
        `${clear}one █ of ma${clear}two${clear}kept\nalso\nte␛xt\n${clear}last${clear}`
      )
    }))
  it.effect("shows only what stays elsewhere", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* shown(false, script), "kept\nalso\nte␛xt\n")
    }))
  it.effect("takes 80 columns where a terminal does not know", () =>
    Effect.gen(function*() {
      const long = yield* shown(true, ({ status }) => status("x".repeat(100)), 0)
      assert.strictEqual(long.split("x").length - 1, 79)
    }))
  it("tells shares, times and quantities", () => {
    const bars = [0, 0.5, 1, 2, -1].map((share) => Screen.bar(share, 4))
    assert.deepStrictEqual(bars, ["░░░░", "██░░", "████", "████", "░░░░"])
    const times = [0.4, 59.6, 200, 7500].map(Screen.duration)
    assert.deepStrictEqual(times, ["0 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"])
    assert.deepStrictEqual(
      [7, 999, 1000, 1066112, 12.34e6, 6738415616].map((value) => Screen.quantity(value)),
      ["7", "999", "1.00 k", "1.07 M", "12.3 M", "6.74 G"]
    )
    const bytes = [0, 33, 999, 1000, 12.34e6].map((value) => Screen.quantity(value, "B"))
    assert.deepStrictEqual(bytes, ["0 B", "33 B", "999 B", "1.00 kB", "12.3 MB"])
  })
  it("makes control characters visible, and leaves line breaks and tabs", () => {
    assert.strictEqual(Screen.visible("a\u0000b\u001B[2J\tc\nd\u007F\u009Bé"), "a␀b␛[2J\tc\nd␡\uFFFDé")
  })
})

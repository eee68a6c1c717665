import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria, rows, tiny, withFiles } from "./Cria.ts"

/** Trains once; every test reads the same run. */
const trained = Effect.runSync(Effect.cached(Effect.gen(function*() {
  const disk = MemoryDisk.make()
  yield* withFiles(disk, { "/texts/a.jsonl": rows, "/prompt.txt": "It was", "/runs/none.txt": "" })
  yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", ...tiny({ "--evaluate-every": "2" })])
  return disk
})))

const generate = (args: ReadonlyArray<string>, input?: string) =>
  Effect.flatMap(trained, (disk) => {
    const length = args.includes("--max-tokens") ? [] : ["--max-tokens", "12"]
    return cria(disk, ["generate", ...length, ...args], input === undefined ? {} : { input })
  })

const fails = (args: ReadonlyArray<string>) =>
  Effect.map(generate(args), ({ errors, exit }) => {
    assert.isTrue(Exit.isFailure(exit), "it did not fail")
    return errors
  })

describe("cria generate", () => {
  it.live("continues with the model that trained last; the text alone is its output", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* generate(["One day"])
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.isTrue(output.startsWith("One day") && output.endsWith("\n") && output.length > 9, output)
      assert.strictEqual(errors, "runs/a/snapshot-00000004, reference\n")
    }))
  it.live("takes the prompt from a file or from standard input alike", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["It was"])
      assert.strictEqual((yield* generate(["--file", "/prompt.txt"])).output, output)
      assert.strictEqual((yield* generate([], "It was")).output, output)
    }))
  it.live("gives the same text for the same seed, another for another", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["One day"])
      assert.strictEqual((yield* generate(["One day", "--seed", "0"])).output, output)
      assert.notStrictEqual((yield* generate(["One day", "--seed", "1"])).output, output)
    }))
  it.live("prints tokens and the end as JSON lines, whose texts are the text", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["One day", "--json"])
      const lines: ReadonlyArray<Record<string, unknown>> = output.trimEnd().split("\n").map((line) => JSON.parse(line))
      assert.deepStrictEqual(Object.keys(lines[0] ?? {}), ["event", "id", "text", "logProb"])
      assert.deepStrictEqual(Object.keys(lines.at(-1) ?? {}), ["event", "reason", "text"])
      const text = lines.map((line) => line["text"]).join("")
      assert.strictEqual(`One day${text}\n`, (yield* generate(["One day"])).output)
    }))
  it.live("reads the snapshot that is asked for", () =>
    Effect.gen(function*() {
      assert.include((yield* generate(["a", "--snapshot", "2"])).errors, "runs/a/snapshot-00000002, reference\n")
      assert.match((yield* generate(["a", "--best"])).errors, /^runs\/a\/snapshot-0000000[24], reference\n$/)
      const greedy = yield* generate(["a", "--greedy", "--json"])
      assert.include(greedy.output, `"logProb":0}`)
    }))
  it.live("says what is wrong", () =>
    Effect.gen(function*() {
      assert.match(yield* fails(["a", "--temperature", "0"]),
        /^error: flags: these settings cannot be used\n {2}temperature = 0: temperature must be greater than 0/)
      assert.strictEqual(yield* fails(["a", "--greedy", "--top-k", "3"]),
        "error: --greedy and --top-k ask for different things: give one of them\n")
      assert.match(yield* fails(["a", "--file", "/prompt.txt"]), /^error: the argument and --file ask for different/)
      assert.include(yield* fails(["a", "--snapshot", "3"]),
        "error: runs/a/snapshot-00000003: there is no snapshot\nThere is snapshot-00000002, snapshot-00000004: correct")
      assert.strictEqual(yield* fails(["a", "--run", "runs/b"]),
        "error: runs/b holds no run: it has no configuration.json\n  There are runs/a: name the folder of a run, or " +
          "begin one with cria pretrain.\n")
      assert.match(yield* fails(["a", "--max-tokens", "0"]), /maximumTokens must be a whole number .*, got 0/)
    }))
  it.live("refuses a prompt that fills the context, and names the room there is", () =>
    Effect.gen(function*() {
      assert.match(yield* fails(["One day ".repeat(20)]), /must fit into a context of 32 tokens/)
    }))
})

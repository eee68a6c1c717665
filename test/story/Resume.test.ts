/**
 * A run killed at a random moment and resumed ends with the bits of one that never stopped; Ctrl-C loses nothing.
 */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))
const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "cria-story-"))
afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const texts = Path.join(root, "src/data/StoryPlots.ts") // any text will do
const sizes = [
  "--embed-size", "16", "--layer-count", "1", "--head-count", "2", "--hidden-size", "32", "--vocab-size", "400",
  "--context-length", "64", "--sequence-length", "32", "--batch-size", "4", "--steps", "600", "--snapshot-every", "50",
  "--evaluate-every", "100", "--validation-share", "0.3", "--threads", "2", "--prompt", "a"
]

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
  readonly errors: string
}

/** Runs the built command line; `stop` sends a signal some milliseconds after a text was printed. */
const cria = (args: ReadonlyArray<string>, stop?: {
  readonly after: string
  readonly milliseconds: number
  readonly signal: NodeJS.Signals
}): Promise<Ended> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [Path.join(root, "dist/cli/main.js"), ...args], { cwd: folder })
    let [output, errors, isStopping] = ["", "", false]
    child.stdout.on("data", (chunk) => {
      output += String(chunk)
      if (stop !== undefined && !isStopping && output.includes(stop.after)) {
        isStopping = true
        setTimeout(() => child.kill(stop.signal), stop.milliseconds)
      }
    })
    child.stderr.on("data", (chunk) => { errors += String(chunk) })
    child.on("close", (code, signal) => resolve({ code, signal, output, errors }))
  })

const begin = (run: string) => ["pretrain", "--text", texts, ...sizes, "--out", run]

/** Kills a run some time after one of the texts was printed. */
const killAtRandom = (...texts: ReadonlyArray<string>) => ({
  after: texts[Math.floor(Math.random() * texts.length)]!, milliseconds: Math.random() * 200, signal: "SIGKILL"
} as const)

/** What the clock does not decide. */
const remains = (run: string) => {
  const at = (...names: ReadonlyArray<string>) => Fs.readFileSync(Path.join(folder, run, ...names))
  const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex")
  return {
    journal: String(at("journal.jsonl")),
    model: digest(at("snapshot-00000600", "model.safetensors")),
    optimizer: digest(at("snapshot-00000600", "optimizer.safetensors"))
  }
}

describe("a reader that went away", () => {
  it.each(["--help", "--wizard"])("ends cria %s without a word, as other programs in a pipe", async (flag) => {
    const ended = await new Promise<Omit<Ended, "output">>((resolve) => {
      const child = spawn(process.execPath, [Path.join(root, "dist/cli/main.js"), flag], { cwd: folder })
      let errors = ""
      child.stdout.destroy()
      child.stderr.on("data", (chunk) => { errors += String(chunk) })
      child.on("close", (code, signal) => resolve({ code, signal, errors }))
    })
    assert.deepStrictEqual(ended, { code: 141, signal: null, errors: "" })
  })
})

describe("output that cannot be written", () => {
  const cria = (args: ReadonlyArray<string>, output: number) =>
    new Promise<Omit<Ended, "output">>((resolve) => {
      const child = spawn(process.execPath, [Path.join(root, "dist/cli/main.js"), ...args], {
        cwd: folder, stdio: ["ignore", output, "pipe"]
      })
      let errors = ""
      child.stderr!.on("data", (chunk) => { errors += String(chunk) })
      child.on("close", (code, signal) => resolve({ code, signal, errors }))
    })
  it.skipIf(!Fs.existsSync("/dev/full"))("is told, with the exit code 1 (needs /dev/full)", async () => {
    const full = Fs.openSync("/dev/full", "w")
    assert.deepStrictEqual(await cria(["--help"], full), {
      code: 1, signal: null, errors: "error: standard output: ENOSPC: no space left on device, write\n  The disk is " +
        "full: free some space, or name another place.\n"
    })
    const decode = ["tokenizer", "decode", "5", "--tokenizer", Path.join(root, "test/parity/tokenizer/llama.model")]
    assert.match((await cria(decode, full)).errors, /^error: standard output: ENOSPC: .*\n.*\n$/) // once
    Fs.closeSync(full)
  })
})

describe("a run that is stopped", () => {
  it("ends with the same bits after SIGKILL at random moments, and verifies", async () => {
    const whole = await cria(begin("whole"))
    assert.strictEqual(whole.code, 0, whole.errors)
    let began: Ended
    do { // a run that is over before the signal comes is no use: another one
      Fs.rmSync(Path.join(folder, "killed"), { recursive: true, force: true })
      began = await cria(begin("killed"), killAtRandom("training", "step  30", "step  60", "step  90", "step 120"))
    } while (began.code === 0)
    assert.strictEqual(began.signal, "SIGKILL", began.errors)
    for (let again = 0; again < 3; again++) {
      await cria(["pretrain", "--resume", "--out", "killed"], killAtRandom("training"))
    }
    const resumed = await cria(["pretrain", "--resume", "--out", "killed"])
    assert.strictEqual(resumed.code, 0, resumed.errors)
    assert.deepStrictEqual(remains("killed"), remains("whole"))
    const verified = await cria(["pretrain", "--verify-resume", "--out", "killed"])
    assert.match(verified.output, /equal {6}steps 550 to 600: \d+ tensors and 50 journal lines, bit for bit/)
    assert.strictEqual(verified.code, 0, verified.errors)
  })
  it("saves its last step at Ctrl-C and kill, says how to go on, and ends with the same bits", async () => {
    const stopBy = async (signal: NodeJS.Signals, code: number) => {
      let stopped: Ended
      do { // as above
        Fs.rmSync(Path.join(folder, "stopped"), { recursive: true, force: true })
        stopped = await cria(begin("stopped"), { after: "step  30/600", milliseconds: 0, signal })
      } while (stopped.code === 0)
      assert.strictEqual(stopped.code, code, stopped.errors)
      const sentence = /\nstopped; step (\d+) is saved\. Go on with: cria (pretrain --resume --out stopped)\n$/
      const said = sentence.exec(stopped.output)
      assert.isNotNull(said, stopped.output)
      assert.isTrue(Fs.existsSync(Path.join(folder, "stopped", `snapshot-${said?.[1]?.padStart(8, "0")}`)))
      return said
    }
    await stopBy("SIGTERM", 143)
    const said = await stopBy("SIGINT", 130)
    const resumed = await cria(said?.[2]?.split(" ") ?? [])
    assert.strictEqual(resumed.code, 0, resumed.errors)
    assert.deepStrictEqual(remains("stopped"), remains("whole"))
  })
  it("saves its last step where the reader of its output goes away", async () => {
    const ended = await new Promise<Omit<Ended, "output">>((resolve) => {
      const child = spawn(process.execPath, [Path.join(root, "dist/cli/main.js"), ...begin("unread")], { cwd: folder })
      let [output, errors] = ["", ""]
      child.stdout.on("data", (chunk) => {
        output += String(chunk)
        if (output.includes("step  30/600")) child.stdout.destroy()
      })
      child.stderr.on("data", (chunk) => { errors += String(chunk) })
      child.on("close", (code, signal) => resolve({ code, signal, errors }))
    })
    assert.deepStrictEqual(ended, { code: 141, signal: null, errors: "" })
    const steps = Fs.readFileSync(Path.join(folder, "unread", "journal.jsonl"), "utf8").matchAll(/"step":(\d+)/g)
    const last = [...steps].at(-1)?.[1] ?? ""
    assert.isBelow(Number(last), 600)
    assert.isTrue(Fs.existsSync(Path.join(folder, "unread", `snapshot-${last.padStart(8, "0")}`)), last)
    const generated = await new Promise<Omit<Ended, "errors">>((resolve) => {
      const args = ["generate", "a", "--model", "unread", "--max-tokens", "3", "--json"]
      const child = spawn(process.execPath, [Path.join(root, "dist/cli/main.js"), ...args], { cwd: folder })
      let output = ""
      child.stderr.destroy() // whoever read that went away: the answer is whole without it
      child.stdout.on("data", (chunk) => { output += String(chunk) })
      child.on("close", (code, signal) => resolve({ code, signal, output }))
    })
    assert.match(generated.output, /^\{"id":1,.*\}\n$/)
    assert.deepStrictEqual([generated.code, generated.signal], [0, null])
  })
  it("fails with a sentence and the exit code 1", async () => {
    const refused = await cria(begin("whole"))
    assert.strictEqual(refused.code, 1)
    assert.match(refused.errors, /^error: whole holds a run already\n.*--resume.*\n$/)
    assert.strictEqual(refused.output, "")
    assert.strictEqual((await cria(["pretrain", "--text", "nowhere.txt"])).code, 1)
    assert.strictEqual((await cria(["--setps"])).code, 1)
    assert.strictEqual((await cria(["--version"])).code, 0)
  })
})

import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria } from "./Cria.ts"

const run = (...args: ReadonlyArray<string>) => cria(MemoryDisk.make(), args)

describe("cria", () => {
  it.live("tells its version", () =>
    Effect.gen(function*() {
      assert.match((yield* run("--version")).output, /cria v?0\.0\.0/)
    }))
  it.live("teaches: every command, every flag with a sentence, examples", () =>
    Effect.gen(function*() {
      const { exit, output } = yield* run("--help")
      assert.isTrue(Exit.isSuccess(exit))
      for (const name of ["pretrain", "generate", "doctor"]) {
        assert.match(output, new RegExp(`^ {2}${name} +[A-Z].+`, "m"))
        const help = (yield* run(name, "--help")).output
        assert.include(help, `# `, `no examples of ${name}`)
        const flags = help.split("\n").filter((line) => /^ {2}--/.test(line))
        for (const line of flags) assert.match(line, / {2}[A-Z1]\w* /, line)
      }
    }))
  it.live("suggests a command that was meant, and fails", () =>
    Effect.gen(function*() {
      const { errors, exit } = yield* run("pretrian")
      assert.isTrue(Exit.isFailure(exit))
      assert.match(errors, /Unknown subcommand "pretrian"[^]*Did you mean this\?\n\s+pretrain/)
    }))
  it.live("tells what cannot be read of a line in a sentence, and where help is", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* run("generate", "a", "--temperature", "warm")
      assert.isTrue(Exit.isFailure(exit))
      assert.strictEqual(output, "")
      assert.match(errors, new RegExp("^error: Invalid value for flag --temperature: \"warm\"\\..*\n {2}cria " +
        "generate --help explains what it takes\\.\n$"))
      assert.strictEqual((yield* run("export")).errors,
        "error: Missing required argument: checkpoint\n  cria export --help explains what it takes.\n")
    }))
  it.live("says how a text is given that begins with a dash, whose letters are no flags", () =>
    Effect.gen(function*() {
      const said = (...args: ReadonlyArray<string>) => Effect.map(run(...args), ({ errors }) => errors)
      const help = (name: string) => `  ${name} --help explains what it takes.\n`
      for (const prompt of ["-one", "- One day", "-s", "--one day", "--one", "-have a day", "-hv this"]) {
        assert.strictEqual(yield* said("generate", "--seed", "1", prompt),
          `error: Unrecognized flag: ${prompt} in command cria generate\n  If it is a prompt: cria generate -- "-…", ` +
            `with all flags before --; or a line of --prompt-file -.\n${help("cria generate")}`)
      }
      assert.strictEqual(yield* said("tokenizer", "encode", "-abc"), // of which -b is like --bos
        "error: Unrecognized flag: -abc in command cria tokenizer encode\n  If it is no flag: cria tokenizer encode " +
          `-- "-…", with all flags before --.\n${help("cria tokenizer encode")}`)
      assert.strictEqual(yield* said("generate", "--tempratur", "1"), "error: Unrecognized flag: --tempratur in " +
        `command cria generate\n\n  Did you mean this?\n    --temperature\n${help("cria generate")}`)
      assert.strictEqual(yield* said("doctor", "-s"), // which takes no text
        `error: Unrecognized flag: -s in command cria doctor\n${help("cria doctor")}`)
      assert.notInclude(yield* said("generate", "--", "-one"), "flag")
    }))
  it.live("says how a value is given that begins with a dash", () =>
    Effect.gen(function*() {
      const help = "  cria generate --help explains what it takes.\n"
      for (const [flag, value, kind] of [["--prompt-file", "-.jsonl", "PATH"], ["--stop", "- ", "TEXT"]] as const) {
        const { errors } = yield* run("generate", "a", flag, value)
        assert.strictEqual(errors, `error: Missing value for flag ${flag}. Expected: ${kind}\n` +
          `  A value that begins with a dash is joined to its flag: ${flag}="${value}"\n${help}`)
      }
      assert.strictEqual((yield* run("generate", "a", "--stop", "-x", "--stop", "-xy")).errors,
        "error: Missing value for flag --stop. Expected: TEXT\n" +
          `  A value that begins with a dash is joined to its flag: --stop="-x"\n` +
          `  A value that begins with a dash is joined to its flag: --stop="-xy"\n${help}`)
      assert.strictEqual((yield* run("generate", "a", "--stop", "--json")).errors,
        `error: Missing value for flag --stop. Expected: TEXT\n${help}`)
    }))
  it.live("refuses paths that are empty, and text whose bytes were not UTF-8", () =>
    Effect.gen(function*() {
      const path = "Expected: a path (a variable of the shell that is not set gives an empty one)\n"
      for (const [args, name] of [
        [["generate", "a", "--model", ""], "--model"], [["generate", "--prompt-file", ""], "--prompt-file"],
        [["import", "a", "--out", ""], "--out"], [["export", "a", "--to", "gguf", "--out", ""], "--out"],
        [["evaluate", "perplexity", "--text", ""], "--text"]
      ] as const) {
        assert.include((yield* run(...args)).errors, `error: Missing value for flag ${name}. ${path}`)
      }
      assert.include((yield* run("inspect", "")).errors, `error: Invalid value for argument <path>: "". ${path}`)
      const text = "Expected: text in UTF-8 (� stands where bytes are not: convert them, for instance with iconv -f " +
        "LATIN1 -t UTF-8)\n"
      assert.include((yield* run("generate", "caf�")).errors,
        `error: Invalid value for argument <prompt>: "caf�". ${text}`)
      for (const args of [
        ["generate", "a", "--stop"], ["tokenizer", "train", "--required-characters"],
        ["tokenizer", "train", "--symbol"]
      ]) {
        assert.include((yield* run(...args, "�")).errors, `error: Invalid value for flag ${args.at(-1)}: "�". ${text}`)
      }
    }))
  it.live("says of a number that is too great to be told from others how great it may be", () =>
    Effect.gen(function*() {
      const said = (number: string) => Effect.map(run("generate", "a", "--seed", number), ({ errors }) => errors)
      assert.match(yield* said("9007199254740992"), /an integer of at most 9007199254740991\n/)
      assert.match(yield* said("-9007199254740993"), /an integer of at most 9007199254740991\n/)
      assert.match(yield* said("1.5"), /an integer\n/)
    }))
  it.live("shows what there is when nothing is asked", () =>
    Effect.gen(function*() {
      assert.include((yield* run()).output, "SUBCOMMANDS")
    }))
})

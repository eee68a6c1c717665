import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { gzipSync } from "node:zlib"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { filledUp, told, withModel } from "./checkpoints.ts"
import { cria, rows, tiny, withFiles } from "./Cria.ts"

const files = {
  "/texts/a.jsonl": rows, "/runs/none.txt": "", "/one.txt": "One day\n", "/one-crlf.txt": "One day\r\n",
  "/prompts.txt": "One day\nIt was\nA", "/gap.txt": "One day\n\nIt was",
  "/prompts.jsonl": `{"prompt": "One day", "id": "first"}\n{"prompt": ""}\n`,
  "/prompts.jsonl.gz": gzipSync(`{"prompt": "One day", "id": "first"}\n{"prompt": ""}\n`),
  "/wrong.jsonl": `{"prompt": "One day"}\n{"text": "It was"}\n`,
  "/latin.txt": Uint8Array.of(0x63, 0x61, 0x66, 0xe9, 0x0a) // "café" in Latin-1
}

/** Trains once; every test reads the same run. */
const trained = Effect.runSync(Effect.cached(Effect.gen(function*() {
  const disk = MemoryDisk.make()
  yield* withFiles(disk, files)
  yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", ...tiny({ "--evaluate-every": "2" })])
  return disk
})))

/** The same with sizes that blocks of codes divide. */
const divisible = Effect.runSync(Effect.cached(Effect.gen(function*() {
  const disk = MemoryDisk.make()
  yield* withFiles(disk, files)
  yield* cria(disk, ["pretrain", "--text", "/texts/a.jsonl", ...tiny({ "--embed-size": "32", "--hidden-size": "32" })])
  return disk
})))

const generate = (args: ReadonlyArray<string>, input?: string | Uint8Array) =>
  Effect.flatMap(trained, (disk) => {
    const length = args.includes("--max-tokens") ? [] : ["--max-tokens", "12"]
    return cria(disk, ["generate", ...length, ...args], input === undefined ? {} : { input })
  })

const fails = (args: ReadonlyArray<string>) =>
  Effect.map(generate(args), ({ errors, exit }) => {
    assert.isTrue(Exit.isFailure(exit), "it did not fail")
    return errors
  })

type Line = Readonly<Record<string, unknown>>

const lines = (output: string): ReadonlyArray<Line> =>
  output.trimEnd().split("\n").map((line): Line => JSON.parse(line))

describe("cria generate", () => {
  it.live("continues with the model that trained last; the text alone is its output, the pace goes elsewhere", () =>
    Effect.gen(function*() {
      const { errors, exit, output } = yield* generate(["One day"])
      assert.isTrue(Exit.isSuccess(exit), errors)
      assert.isTrue(output.startsWith("One day") && output.endsWith("\n") && output.length > 9, output)
      assert.match(errors, new RegExp("^runs/a/snapshot-00000004, reference\n" +
        "\\d+ tokens in \\d+\\.\\d\\d s, \\d+ a second; the first after \\d+ ms; ended by --max-tokens 12\n$"))
    }))
  it.live("says why the text ended, unless the model ended it", () =>
    Effect.gen(function*() {
      const endOf = (...args: ReadonlyArray<string>) =>
        Effect.map(generate(["One day", "--greedy", ...args]), ({ errors }) => errors.match(/ ms(.*)\n$/)?.[1])
      const [line] = lines((yield* generate(["One day", "--greedy", "--json"])).output)
      const [text, tokens] = [String(line!["text"]), line!["tokens"] as ReadonlyArray<number>]
      assert.strictEqual(yield* endOf("--context-length", "12", "--max-tokens", "30"),
        "; ended by the context, which holds 12 tokens with the prompt's")
      assert.strictEqual(yield* endOf("--stop", text.slice(2, 4)), "; ended by --stop")
      assert.strictEqual(yield* endOf("--max-tokens", "1"), "; ended by --max-tokens 1")
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* cria(disk, ["export", "/runs/a", "--to", "huggingface", "--out", "/hf"])
      yield* withFiles(disk, { "/hf/generation_config.json": JSON.stringify({ eos_token_id: tokens[0] }) })
      const own = yield* cria(disk, ["generate", "One day", "--greedy", "--model", "/hf", "--backend", "reference"])
      assert.match(own.errors, /; the first after \d+ ms\n$/)
    }))
  it.live("takes the prompt from standard input alike", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["It was"])
      assert.strictEqual((yield* generate([], "It was")).output, output)
      assert.strictEqual((yield* generate(["-"], "It was\n")).output, output)
    }))
  it.live("drops one line break that ends standard input, or the only line of a file; not that of an argument", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["It was"])
      for (const ending of ["\n", "\r\n"]) assert.strictEqual((yield* generate([], `It was${ending}`)).output, output)
      assert.isTrue((yield* generate([], "It was\n\n")).output.startsWith("It was\n"))
      assert.strictEqual((yield* generate([], "It was\n\n")).output, (yield* generate(["It was\n"])).output)
      const alone = (yield* generate(["One day", "--json"])).output
      for (const file of ["/one.txt", "/one-crlf.txt"]) {
        assert.strictEqual((yield* generate(["--prompt-file", file, "--json"])).output, alone)
      }
    }))
  it.live("says what to do where a snapshot is damaged", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* withFiles(disk, { "/runs/a/snapshot-00000004/model.safetensors": "torn" })
      const { errors } = yield* cria(disk, ["generate", "a"])
      assert.match(errors, /is not the snapshot that was saved\n/)
      assert.match(errors, /resume from that one\.\n--snapshot STEP generates from another of its run\.\n$/)
      const evaluated = yield* cria(disk, ["evaluate", "perplexity", "--text", "/one.txt"])
      assert.match(evaluated.errors, /that one\.\nGive the folder of another snapshot in place of the run\.\n$/)
    }))
  it.live("says that there is no run, the same in every command, and that a model is not there", () =>
    Effect.gen(function*() {
      const none = MemoryDisk.make()
      yield* withFiles(none, { "/one.txt": "One day\n" })
      for (const args of [
        ["generate", "a"], ["evaluate", "perplexity", "--text", "/one.txt"], ["tokenizer", "encode", "a"],
        ["tokenizer", "inspect", "a"]
      ]) {
        assert.strictEqual(yield* told(none, ...args), "error: no run in runs/ has trained\n  Begin one with cria " +
          "pretrain, or name a model: --model PATH (to cria tokenizer: --tokenizer PATH).\n")
      }
      for (const args of [["generate", "a"], ["evaluate", "perplexity", "--text", "/one.txt"]]) {
        assert.include(yield* told(none, ...args, "--model", "nowhere", "--backend", "reference"),
          "error: nowhere: no checkpoint that Cria reads; found nothing, for the path does not exist\n")
      }
    }))
  it.live("gives the same text for the same seed, another for another", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["One day"])
      assert.strictEqual((yield* generate(["One day", "--seed", "0"])).output, output)
      assert.notStrictEqual((yield* generate(["One day", "--seed", "1"])).output, output)
    }))
  it.live("prints an answer as a line of JSON, whose text is the text", () =>
    Effect.gen(function*() {
      const [line] = lines((yield* generate(["One day", "--json"])).output)
      assert.deepStrictEqual(Object.keys(line!), ["id", "candidate", "text", "tokens", "reason"])
      assert.deepStrictEqual([line!["id"], line!["candidate"], line!["reason"]], [1, 0, "maximum"])
      assert.strictEqual(`One day${line!["text"]}\n`, (yield* generate(["One day"])).output)
      const [known] = lines((yield* generate(["One day", "--json", "--log-probs", "--greedy"])).output)
      assert.deepStrictEqual(known!["logProbs"], Array.from(known!["tokens"] as ReadonlyArray<number>, () => 0))
    }))
  it.live("answers many prompts of a file, however many are written together", () =>
    Effect.gen(function*() {
      const together = ["--prompt-file", "/prompts.txt", "--candidates", "3", "--json"]
      const all = lines((yield* generate(together)).output)
      const places = all.map(({ candidate, id }) => `${id} ${candidate}`)
      assert.deepStrictEqual(places.toSorted(), ["1 0", "1 1", "1 2", "2 0", "2 1", "2 2", "3 0", "3 1", "3 2"])
      const texts = (some: ReadonlyArray<Line>) => some.map((line) => JSON.stringify(line)).toSorted()
      assert.deepStrictEqual(texts(lines((yield* generate([...together, "--slots", "2"])).output)), texts(all))
      const alone = lines((yield* generate(["One day", "--json"])).output)
      assert.deepStrictEqual(alone[0], all.find(({ candidate, id }) => id === 1 && candidate === 0))
    }))
  it.live("tells answers by the ids of a .jsonl file; as text, each below its name", () =>
    Effect.gen(function*() {
      const named = lines((yield* generate(["--prompt-file", "/prompts.jsonl", "--json"])).output)
      assert.deepStrictEqual(named.map(({ id }) => id).toSorted(), [2, "first"])
      const { output } = yield* generate(["--prompt-file", "/prompts.jsonl", "--slots", "1", "--stop", "\n"])
      assert.match(output, /^--- first \((maximum|text)\)\nOne day.*\n--- 2 \((maximum|text|id)\)\n.*\n$/s)
    }))
  it.live("reads many prompts from standard input, as lines or rows, and says its name", () =>
    Effect.gen(function*() {
      for (const [file, name] of [["/prompts.txt", "-"], ["/prompts.jsonl", "-.jsonl"]] as const) {
        const named = (yield* generate(["--prompt-file", file, "--json"])).output
        const { errors, output } = yield* generate([`--prompt-file=${name}`, "--json"], files[file])
        assert.strictEqual(output, named, errors)
      }
      const told = (name: string, input: string) =>
        Effect.map(generate([`--prompt-file=${name}`], input), ({ errors }) => errors.match(/error: (.*)\n/)?.[1])
      assert.include((yield* generate(["--prompt-file", "-"], "One day")).output, "--- 1 (")
      assert.strictEqual(yield* told("-", ""), "standard input, line 1: it is empty")
      assert.strictEqual(yield* told("-", "a\n\nb"), "standard input, line 2: the line is empty: remove it, or give " +
        "rows, --prompt-file=-.jsonl, where a prompt may be empty")
      assert.strictEqual(yield* told("-.jsonl", "a"), "standard input, line 1: expected a valid JSON string")
    }))
  it.live("reads rows that are packed", () =>
    Effect.gen(function*() {
      const { output } = yield* generate(["--prompt-file", "/prompts.jsonl.gz", "--json"])
      assert.strictEqual(output, (yield* generate(["--prompt-file", "/prompts.jsonl", "--json"])).output)
    }))
  it.live("ends before a text that it is told to stop at", () =>
    Effect.gen(function*() {
      const [line] = lines((yield* generate(["One day", "--json", "--greedy"])).output)
      const text = String(line!["text"])
      const [stopped] = lines((yield* generate(["One day", "--json", "--greedy", "--stop", text.slice(2, 4)])).output)
      assert.strictEqual(stopped!["reason"], "text")
      assert.strictEqual(stopped!["text"], text.slice(0, text.indexOf(text.slice(2, 4))))
      const [tokens, drawn] = [stopped, line].map((said) => [said!["tokens"]].flat())
      assert.deepStrictEqual(tokens, drawn!.slice(0, tokens!.length)) // those of --stop are told
    }))
  it.live("reads the snapshot that is asked for, and a snapshot by its own path", () =>
    Effect.gen(function*() {
      assert.match((yield* generate(["a", "--snapshot", "2"])).errors, /^runs\/a\/snapshot-00000002, reference\n/)
      assert.match((yield* generate(["a", "--best"])).errors, /^runs\/a\/snapshot-0000000[24], reference\n/)
      assert.match((yield* generate(["a", "--model", "runs/a/snapshot-00000002"])).errors,
        /^runs\/a\/snapshot-00000002, reference\n/)
      assert.strictEqual((yield* generate(["a", "--model", "runs/a/snapshot-00000004"])).output,
        (yield* generate(["a", "--model", "runs/a"])).output)
    }))
  it.live("says what is wrong", () =>
    Effect.gen(function*() {
      assert.match(yield* fails(["a", "--temperature", "0"]),
        /^error: .*\n {2}--temperature 0: must be greater than 0; for the likeliest token give --greedy\n$/)
      assert.match(yield* fails(["a", "--top-p", "1.5"]), new RegExp("\n {2}--top-p 1\\.5: must be greater than 0 " +
        "and at most 1; leave it out to keep every token\n$"))
      assert.strictEqual(yield* fails(["a", "--greedy", "--top-k", "3"]),
        "error: --greedy and --top-k ask for different things: give one of them\n")
      assert.match(yield* fails(["a", "--prompt-file", "/prompts.txt"]),
        /^error: the argument and --prompt-file ask for different/)
      assert.include(yield* fails(["a", "--snapshot", "3"]),
        "error: runs/a/snapshot-00000003: there is no snapshot\nThere is snapshot-00000002, snapshot-00000004: correct")
      assert.strictEqual(yield* fails(["a", "--model", "runs/b", "--best"]),
        "error: runs/b holds no run: it has no configuration.json\n  There are runs/a: name the folder of a run, or " +
          "begin one with cria pretrain.\n")
      assert.include(yield* fails(["a", "--model", "runs/none.txt", "--backend", "reference"]), "runs/none.txt")
      const absent = ["--backend", "tensorflow-node-gpu"] // an engine that does not start here
      assert.match(yield* fails(["a", ...absent]), /^runs\/a\/.*\nerror: .*tfjs-node-gpu/s)
      for (const [flag, message] of [
        ["--max-tokens", /^error: .*\n {2}--max-tokens must be a whole number .*, got 0\n/],
        ["--candidates", /^error: .*\n {2}--candidates must be a whole number .*, got 0\n/],
        ["--slots", /^error: cria generate: --slots and --context-length must be whole numbers of at least 1/],
        ["--context-length", /^error: .*--context-length must be whole numbers/]
      ] as const) assert.match(yield* fails(["a", flag, "0", ...absent]), message)
      assert.strictEqual(yield* fails(["a", "--context-length", "33", ...absent]),
        "error: --context-length 33 is more than the model's 32 tokens\n  Beyond them it was never trained, and " +
          "writes nonsense: ask for fewer, or leave the flag out.\n")
      assert.match(yield* fails(["a", "--threads", "0"]), /^error: flags: .*\n {2}--threads 0: /)
      assert.match(yield* fails(["One day ".repeat(20), ...absent]), /^error: .* must fit into a context of 32 tokens/)
      assert.match(yield* fails(["a", "--threads", "99999"]), new RegExp("^error: --threads 99999 is more than the " +
        "\\d+ that are allowed here: .*\n {2}Give --threads \\d+\\.\n$"))
      assert.match(yield* fails(["a", "--slots", "9999999999"]), new RegExp("\nerror: .* takes at least .* GB of " +
        "memory here, .*\n.* GB of 9999999999 caches \\(--slots\\) for 32 tokens\n {2}Take fewer --slots, a shor"))
      assert.strictEqual(yield* fails(["a", "--greedy", "--candidates", "2"]), "error: --greedy gives one answer to " +
        "a prompt, and --candidates 2 would give the same so many times: leave one of them out\n")
      assert.strictEqual(yield* fails(["a", "--log-probs"]),
        "error: --log-probs has no place in plain text: add --json\n")
    }))
  it.live("names the line of a file that holds no prompt", () =>
    Effect.gen(function*() {
      assert.include(yield* fails(["--prompt-file", "/gap.txt"]), "/gap.txt, line 2: the line is empty: remove it, " +
        "or give a .jsonl file, where a prompt may be empty\n  A .jsonl")
      const { errors } = yield* generate(["--prompt-file", "/wrong.jsonl"])
      assert.include(errors, "/wrong.jsonl, line 2: \"text\" is no key of a row; \"prompt\" is missing\n")
      assert.include(yield* fails(["--prompt-file", "/runs/none.txt"]), "/runs/none.txt, line 1: it is empty\n")
      const issueOf = (rows: string) => Effect.gen(function*() {
        const disk = MemoryDisk.make()
        yield* withFiles(disk, { ...Object.fromEntries((yield* trained).files()), "/p.jsonl": rows })
        const { errors } = yield* cria(disk, ["generate", "--max-tokens", "1", "--prompt-file", "/p.jsonl"])
        return errors.match(/error: \/p\.jsonl, (.*)\n/)?.[1]
      })
      assert.strictEqual(yield* issueOf("{"), "line 1: expected a valid JSON string")
      assert.strictEqual(yield* issueOf(`{"prompt": "a"}\n \n`), "line 2: the line is empty: remove it")
      assert.strictEqual(yield* issueOf(`{"prompt": 3, "id": null}`),
        "line 1: \"prompt\": expected string; \"id\": expected string | number")
      assert.strictEqual(yield* issueOf(`{"prompt": "Once", "id": 2}\n{"prompt": "The dog"}`),
        "line 2: its id, 2, is that of line 1 already (a row without one has the number of its line)")
      assert.match(`${yield* issueOf(`{"prompt": "a", "id": "x"}\n{"prompt": "b"}\n{"prompt": "c", "id": "x"}`)}`,
        /^line 3: its id, "x", is that of line 1 already/)
      assert.isUndefined(yield* issueOf(`{"prompt": "a", "id": "2"}\n{"prompt": "b"}`)) // a text is no number
    }))
  it.live("refuses prompts in a file that is not there, and bytes that are no text", () =>
    Effect.gen(function*() {
      assert.match(yield* fails(["--prompt-file", "/none.txt"]), /error: cannot read \/none\.txt: .*\n {2}check the/)
      for (const [args, name] of [[["--prompt-file", "/latin.txt"], "/latin.txt"], [[], "standard input"]] as const) {
        const { errors } = yield* generate(args, files["/latin.txt"])
        assert.include(errors, `error: ${name}: byte 0xE9 at byte 3 is not UTF-8, as text must be\n`)
      }
    }))
  it.live("refuses a file of prompts before an engine starts, and reads one that can be read once only once", () =>
    Effect.gen(function*() {
      const absent = ["--backend", "tensorflow-node-gpu"] // an engine that does not start here
      assert.match(yield* fails(["--prompt-file", "/none.txt", ...absent]), /^error: cannot read \/none\.txt: /)
      assert.match(yield* fails(["--prompt-file", "/runs/none.txt", ...absent]), /^error: .*, line 1: it is em/)
      assert.match(yield* fails(["--prompt-file", "/prompts.txt", "--context-length", "2", ...absent]),
        /^error: .* must fit into a context of 2 tokens/)
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* withFiles(disk, { "/pipe": "One day\n" })
      let count = 0
      const { readFile, stat } = disk.fileSystem
      const pipe = {
        ...disk, fileSystem: {
          ...disk.fileSystem,
          stat: (path: string) => Effect.map(stat(path), (info) => path === "/pipe"
            ? { ...info, type: "FIFO" as const } : info),
          readFile: (path: string) => {
            if (path === "/pipe") count++
            return readFile(path)
          }
        }
      }
      assert.match((yield* cria(pipe, ["generate", "--prompt-file", "/pipe"])).output, /^--- 1 /)
      assert.strictEqual(count, 1)
    }))
  it.live("refuses a prompt that fills the context, and names the room there is", () =>
    Effect.gen(function*() {
      assert.match(yield* fails(["One day ".repeat(20)]), /must fit into a context of 32 tokens/)
      assert.match(yield* fails(["One day, ", "--context-length", "4"]), /must fit into a context of 4 tokens/)
    }))
  it.live("keeps weights in fewer bits", () =>
    Effect.gen(function*() {
      const disk = yield* divisible
      for (const weights of ["8-bit", "8-bit-rows", "4-bit"]) {
        const { errors, exit, output } = yield* cria(disk, ["generate", "A", "--max-tokens", "3", "--weights", weights])
        assert.isTrue(Exit.isSuccess(exit), errors)
        assert.include(errors, `snapshot-00000004, ${weights}, reference\n3 tokens`)
        assert.isTrue(output.startsWith("A"))
      }
      const unfit = new RegExp("snapshot-00000004 cannot be kept in 4-bit: 32 weights share a scale, and " +
        "block\\.0\\.attention\\.query \\[.*\\] cannot be cut into so many\n {2}" +
        "Take 8-bit-rows, which fits all sizes, or leave --weights out\\.\n$")
      assert.match(yield* fails(["A", "--weights", "4-bit"]), unfit)
    }))
  it.live("gives the same text with a draft, one answer at a time", () =>
    Effect.gen(function*() {
      const disk = yield* divisible
      const write = (...args: ReadonlyArray<string>) =>
        cria(disk, ["generate", "--prompt-file", "/prompts.txt", "--max-tokens", "9", "--json", ...args])
      const alone = yield* write("--slots", "1")
      for (const width of ["8-bit", "8-bit-rows", "4-bit"]) {
        const { errors, exit, output } = yield* write("--draft", width)
        assert.isTrue(Exit.isSuccess(exit), errors)
        assert.include(errors, `snapshot-00000004, draft in ${width}, reference\n` +
          `reference has no quick product with weights in ${width}: answers come sooner without --draft\n`)
        const drafted = lines(output).map(({ passes, ...line }) => {
          const others = (line["tokens"] as ReadonlyArray<number>).length - 1
          assert.isTrue(Number(passes) >= Math.ceil(others / 8) && Number(passes) <= others, `${passes} of ${others}`)
          return { passes: Number(passes), others, line }
        })
        assert.deepStrictEqual(drafted.map(({ line }) => line), lines(alone.output))
        const sum = (key: "others" | "passes") => drafted.reduce((sum, each) => sum + each[key], 0)
        assert.include(errors, ` ms; ${(sum("others") / sum("passes")).toFixed(1)} tokens a pass of the model\n`)
      }
      assert.notInclude(alone.errors, "a pass")
      const one = (count: string) => cria(disk, ["generate", "One day", "--max-tokens", count, "--draft", "8-bit"])
      assert.match((yield* one("5")).errors, / ms; \d\.\d tokens a pass of the model; ended by --max-tokens 5\n$/)
      assert.notInclude((yield* one("1")).errors, "a pass") // the prompt gives it
      const why = "  Several answers share each reading of the weights already, and a draft is hardly quicker " +
        "than weights in codes.\n"
      assert.strictEqual((yield* write("--draft", "8-bit", "--slots", "2")).errors,
        "error: --draft has no use beside --slots 2: leave one of them out\n" + why)
      assert.strictEqual((yield* write("--draft", "8-bit", "--weights", "4-bit")).errors,
        "error: --draft has no use beside --weights 4-bit: leave one of them out\n" + why)
      assert.match(yield* fails(["A", "--draft", "4-bit"]), new RegExp("snapshot-00000004 cannot be kept in 4-bit: " +
        "32 weights share a scale, and .* cannot be cut into so many\n {2}Take 8-bit-rows, which fits all sizes, or " +
        "leave --draft out\\.\n$"))
    }))
  it.live("draws and ends as the folder of a model says, unless flags do, and says so", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* cria(disk, ["export", "/runs/a", "--to", "huggingface", "--out", "/hf"])
      const say = (value: unknown) => withFiles(disk, { "/hf/generation_config.json": JSON.stringify(value) })
      const writeWith = (model: string, ...args: ReadonlyArray<string>) =>
        cria(disk, ["generate", "One day", "--model", model, "--backend", "reference", "--max-tokens", "6", ...args])
      const write = (...args: ReadonlyArray<string>) => writeWith("/hf", ...args)
      const plain = yield* write("--greedy", "--json")
      assert.match(plain.errors, /^\/hf, reference\n6 tokens/)
      const own = yield* write()
      assert.match(own.errors, /^\/hf, reference\nthe model's folder says: temperature 0\.8, top-p 0\.95\n6 tokens/)
      assert.strictEqual(own.output, (yield* writeWith("/runs/a")).output)
      const [line] = lines(plain.output)
      const ids = line!["tokens"] as ReadonlyArray<number>
      const end = ids.findLast((id, i) => ids.indexOf(id) === i) ?? 0
      yield* say({ eos_token_id: [2, end], do_sample: true, temperature: 0.01, top_p: 0.5, repetition_penalty: 1.2 })
      const ended = yield* write("--greedy", "--json")
      assert.include(ended.errors, `/hf, reference\nthe model's folder says: end at id ${end}\n` +
        "of its generation_config.json nothing is made of repetition_penalty\n")
      assert.deepInclude(lines(ended.output)[0], { reason: "id", tokens: ids.slice(0, ids.indexOf(end) + 1) })
      const drawn = yield* write("--json")
      assert.include(drawn.errors, `the model's folder says: temperature 0.01, top-p 0.5, end at id ${end}\n`)
      assert.deepStrictEqual(lines(drawn.output)[0], lines(ended.output)[0]) // so cold that it is greedy
      assert.include((yield* write("--temperature", "0.5")).errors, "folder says: top-p 0.5, end at")
      yield* say({ do_sample: false, temperature: 0 })
      assert.strictEqual((yield* write("--greedy", "--json")).output, plain.output)
      yield* say({ do_sample: true, temperature: 0 })
      assert.include((yield* write()).errors, "error: /hf/generation_config.json: text cannot be generated as this")
      assert.strictEqual((yield* write("--greedy", "--json")).output, plain.output)
      assert.isTrue(Exit.isSuccess((yield* write("--temperature", "0.5")).exit))
      yield* say({ eos_token_id: 2 })
      const likeliest = "the model's folder does not set do_sample to true, so transformers takes the likeliest tokens"
      assert.include((yield* write()).errors, `/hf, reference\n${likeliest}: --greedy does; this draws\n`)
      assert.notInclude((yield* write("--top-p", "0.5")).errors, likeliest)
      yield* say({ eos_token_id: 2, do_sample: false })
      assert.include((yield* write()).errors, likeliest)
      yield* cria(disk, ["import", "/hf", "--out", "/kept"]) // with what the folder says
      assert.include((yield* writeWith("/kept")).errors, likeliest)
      assert.notInclude((yield* writeWith("/runs/a")).errors, likeliest)
      yield* say({ do_sample: true, temperature: 0 })
      // who generates nothing asks for none of it
      const { output } = yield* cria(disk, ["import", "/hf", "--out", "/imported"])
      assert.match(output, /^\/imported: .* from huggingface/)
    }))
  it.live("takes a vocabulary that was filled up: tokens beyond the tokenizer are never drawn, which is said", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* cria(disk, ["export", "/runs/a", "--to", "huggingface", "--out", "/hf"])
      const write = (model: string, ...args: ReadonlyArray<string>) => cria(disk, ["generate", "One day", "--model",
        model, "--backend", "reference", "--max-tokens", "6", "--json", "--log-probs", ...args])
      yield* filledUp(disk, "/hf", "/filled", 384)
      for (const args of [["--greedy"], ["--temperature", "2", "--top-p", "1"]]) {
        const { errors, output } = yield* write("/filled", ...args)
        assert.match(errors, new RegExp("^the model has 384 tokens, and its tokenizer 320 pieces: the tokens from " +
          "320 on, which no text has, are left out .*\n/filled, reference\n"))
        assert.strictEqual(output, (yield* write("/hf", ...args)).output)
      }
      yield* withFiles(disk, { "/filled/generation_config.json": JSON.stringify({ eos_token_id: [2, 330] }) })
      assert.include((yield* write("/filled", "--greedy")).errors, "its end at id 330 never comes, for the tokenizer " +
        "has 320 pieces: --tokenizer names the one that has it\n")
      yield* cria(disk, ["import", "/filled", "--out", "/imported"])
      assert.strictEqual((yield* write("/imported", "--greedy")).output, (yield* write("/hf", "--greedy")).output)
      yield* filledUp(disk, "/hf", "/twice", 641)
      assert.include((yield* write("/twice")).errors,
        "/twice: the model knows 641 tokens, and the tokenizer in /twice/tokenizer.model 320\n")
    }))
  it.live("begins a line with a failure, though an answer was being written", () =>
    Effect.gen(function*() {
      const disk = MemoryDisk.make()
      yield* withFiles(disk, Object.fromEntries((yield* trained).files()))
      yield* cria(disk, ["export", "/runs/a", "--to", "huggingface", "--out", "/hf"])
      yield* filledUp(disk, "/hf", "/strange", 320, NaN)
      const args = ["generate", "One day", "--model", "/strange", "--backend", "reference"]
      const { errors, output } = yield* cria(disk, args)
      assert.strictEqual(output, "One day\n")
      assert.match(errors, /\nerror: generate: item 0, candidate 0, token \d+ of its sequence\n/)
    }))
  it.live("needs the tokenizer of a checkpoint of others", () =>
    Effect.gen(function*() {
      const disk = yield* withModel
      const model = ["generate", "a", "--model", "/hf", "--backend", "reference"]
      assert.strictEqual(yield* told(disk, ...model),
        "error: /hf has no tokenizer beside it, and its tokens are no text without the one it learned with\n" +
          "  Name that: --tokenizer PATH.\n")
      assert.match(yield* told(disk, ...model, "--tokenizer", "/bytes.model"),
        /^error: \/hf: the model knows \d+ tokens, and the tokenizer in \/bytes\.model 259\n/)
    }))
})

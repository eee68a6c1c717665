/**
 * The house keeps its rules, and each rule notices when it is broken.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as House from "./architecture/House.ts"
import { parse, parseAll } from "./architecture/Source.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const sources = parseAll(`${root}src`)

const isTest = (pattern: string): boolean => {
  if (!pattern.includes("*")) return Fs.existsSync(`${root}${pattern}`)
  const folder = pattern.slice(0, pattern.lastIndexOf("/"))
  const names = Fs.existsSync(`${root}${folder}`) ? Fs.readdirSync(`${root}${folder}`) : []
  return names.some((name) => name.endsWith(".test.ts"))
}

const holds = (faults: ReadonlyArray<string>): void => assert.deepStrictEqual([...faults], [])

describe("the house", () => {
  it("has imports that go down, and packages where they belong", () => holds(House.importFaults(sources)))
  it("loads no native library when `cria`, `cria/testing` or `cria/backend/tensorflow` is imported", () => {
    holds(House.nativeFaults(sources, ["index.ts", "testing/index.ts", "backend/tensorflow/index.ts"]))
  })
  it("has names that say what is inside", () => holds(House.nameFaults(sources)))
  it("has files short enough to read", () => holds(House.lengthFaults(sources)))
  it("has a header on every file, whose tests exist", () => holds(House.headerFaults(sources, isTest)))
  it("documents every export", () => holds(House.documentationFaults(sources)))
  it("has no casts around the compiler, silent try, odd classes or unfinished places", () => {
    holds(House.syntaxFaults(sources))
  })
  it("has a front door with namespaces only", () => {
    holds(sources.filter(({ path }) => path === "index.ts" || path === "testing/index.ts").flatMap(House.indexFaults))
  })
})

/** The faults that a rule finds in a house of these files. */
const inHouse = (files: Readonly<Record<string, string>>) =>
  Object.entries(files).map(([path, text]) => parse(path, text))

describe("the rules", () => {
  it("see an import that climbs", () => {
    assert.deepStrictEqual(
      House.importFaults(inHouse({
        "tensor/Tensor.ts": `import type { Config } from "../llama/Config.ts"`,
        "llama/Config.ts": ""
      })),
      [
        "src/tensor/Tensor.ts:1 imports src/llama/Config.ts: that goes up, from floor 1 (tensor) to floor 3 (llama); " +
        "imports go down"
      ]
    )
  })
  it("see an import that goes sideways, except where the table allows it", () => {
    assert.deepStrictEqual(
      House.importFaults(inHouse({
        "token/BytePair.ts": `import * as Protobuf from "../format/Protobuf.ts"`,
        "format/Protobuf.ts": `\nexport * from "../token/BytePair.ts"`
      })),
      [
        "src/format/Protobuf.ts:2 imports src/token/BytePair.ts: that goes sideways, from floor 1 (format) to floor " +
        "1 (token); imports go down"
      ]
    )
  })
  it("see closed rooms, missing files, unknown floors and packages out of place", () => {
    assert.deepStrictEqual(
      House.importFaults(inHouse({
        "recipe/Pretrain.ts": [
          `import { layer } from "../backend/onnx/index.ts"`,
          `import * as Missing from "../tensor/Missing.ts"`,
          `import * as Fs from "node:fs"`,
          `import { Effect } from "effect"`,
          `import * as Schema from "effect/Schema"`,
          `import { layerCpu } from "../backend/tensorflow/index.ts"`
        ].join("\n"),
        "backend/onnx/index.ts": `import koffi from "koffi"`,
        "backend/tensorflow/index.ts": `const load = () => [import("webgpu"), import("@tensorflow/tfjs-core")]`,
        "backend/Reference.ts": `const load = () => import("koffi")\nconst gpu = () => import("webgpu")\nimport(name)`,
        "cellar/Wine.ts": ""
      })),
      [
        "src/recipe/Pretrain.ts:1 imports src/backend/onnx/index.ts: backend/onnx/ is closed, because only the " +
        "command line chooses a concrete engine",
        "src/recipe/Pretrain.ts:2 imports src/tensor/Missing.ts: there is no such file (relative imports end in .ts)",
        "src/recipe/Pretrain.ts:3 imports node:fs: only backend/onnx/, cli/ may, because files, time and processes " +
        "are services of Effect",
        "src/recipe/Pretrain.ts:4 imports effect: not in the table of packages (name the module: effect/Effect)",
        "src/recipe/Pretrain.ts:6 imports src/backend/tensorflow/index.ts: backend/tensorflow/ is closed, because " +
        "only the command line chooses a concrete engine",
        "src/backend/Reference.ts:1 imports koffi: only backend/onnx/ may, because only its own backend loads " +
        "an engine",
        "src/backend/Reference.ts:2 imports webgpu: only backend/tensorflow/ may, because only its own backend loads " +
        "an engine",
        "src/backend/Reference.ts:3 imports (computed): only backend/tensorflow/Engine.ts may, because what is " +
        "loaded is named where it is imported",
        `src/cellar/Wine.ts: "cellar" is on no floor; add it to the table or move the file`
      ]
    )
  })
  it("see the chain that loads a native library, but not a type or a later import", () => {
    const house = inHouse({
      "index.ts": `export * as Backend from "./backend/Backend.ts"`,
      "backend/Backend.ts": `import type { A } from "./onnx/Library.ts"\nimport { b } from "./Registry.ts"`,
      "backend/Registry.ts": `import { load } from "./onnx/Library.ts"`,
      "backend/onnx/Library.ts": `import binding from "onnxruntime-node/dist/binding.js"`
    })
    assert.deepStrictEqual(House.nativeFaults(house, ["index.ts"]), [
      "importing src/index.ts loads onnxruntime-node/dist/binding.js: index.ts → backend/Backend.ts → " +
      "backend/Registry.ts → backend/onnx/Library.ts → onnxruntime-node/dist/binding.js"
    ])
    for (const name of ["webgpu", "@tensorflow/tfjs-core"]) {
      const eager = inHouse({ "index.ts": `import { Engine } from "${name}"` })
      assert.deepStrictEqual(House.nativeFaults(eager, ["index.ts"]), [
        `importing src/index.ts loads ${name}: index.ts → ${name}`
      ])
    }
    const lazy = inHouse({ "index.ts": `import type { A } from "koffi"\nexport const load = () => import("koffi")` })
    assert.deepStrictEqual(House.nativeFaults(lazy, ["index.ts", "gone.ts"]), ["src/gone.ts is not there"])
  })
  it("see names, lengths and headers", () => {
    const house = inHouse({
      "tensor/utils.ts": "\n".repeat(601),
      "dataSets/Corpus.ts": "/**\n * A corpus.\n *\n * @module\n */\n"
    })
    assert.deepStrictEqual(House.nameFaults(house), [
      `src/tensor/utils.ts: "utils" says nothing; name what is in it`,
      "src/tensor/utils.ts: files are PascalCase nouns (or index.ts, main.ts)",
      `src/dataSets/Corpus.ts: folders are lower-case words, not "dataSets"`
    ])
    assert.deepStrictEqual(House.lengthFaults(house), ["src/tensor/utils.ts: 601 lines; split it before it passes 600"])
    assert.deepStrictEqual(House.headerFaults(house, () => true), [
      "src/tensor/utils.ts: no header comment that says in a sentence what the file is",
      "src/dataSets/Corpus.ts: the header comment lacks the field Checked"
    ])
    const stale = inHouse({
      "data/Corpus.ts":
        "/**\n * A corpus.\n *\n * From     us.\n * Checked  by\n *          data/Corpus.test.ts.\n * @module\n */\n"
    })
    assert.deepStrictEqual(House.headerFaults(stale, () => false), [
      "src/data/Corpus.ts: Checked names test/data/Corpus.test.ts, which does not exist"
    ])
  })
  it("see undocumented exports and forbidden syntax", () => {
    const house = inHouse({
      "loss/Mask.ts": [
        "/**\n * Masks.\n * @module\n */",
        "export const mask = 1",
        "/** Named. */\nexport const Kind = 1\nexport type Kind = 2",
        "class Box {}",
        `class Torn extends Schema.TaggedError<Torn>()("Torn", {}) {}`,
        "const a = b as any, c = b as unknown as string",
        "try { a() } catch {}",
        "try { a() } finally { b() }",
        "// the library throws\ntry { a() } catch {}",
        "try { // the library throws\n a() } catch {}",
        "// TODO",
        "// oxlint-disable-next-line no-console"
      ].join("\n")
    })
    assert.deepStrictEqual(House.documentationFaults(house), [
      "src/loss/Mask.ts:5: mask is exported without a doc comment"
    ])
    assert.deepStrictEqual(House.syntaxFaults(house), [
      "src/loss/Mask.ts:9: a class that is neither an error, a service nor a schema",
      "src/loss/Mask.ts:10: the error Torn must end in Error",
      "src/loss/Mask.ts:11: a cast to any",
      "src/loss/Mask.ts:11: a cast through unknown",
      "src/loss/Mask.ts:12: try/catch without a comment on it that says why",
      `src/loss/Mask.ts:18: "TODO"`,
      `src/loss/Mask.ts: "oxlint-disable-next-line no-console" gives no reason (-- because …)`
    ])
  })
  it("see what does not belong at the front door", () => {
    const [index] = inHouse({
      "index.ts": `export * as Tensor from "./tensor/Tensor.ts"\nexport * from "./tensor/Tensor.ts"`
    })
    assert.deepStrictEqual(House.indexFaults(index!), [
      `src/index.ts:2: only \`export * as Name from "…"\` belongs here`
    ])
  })
})

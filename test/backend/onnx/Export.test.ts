import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import * as Ort from "onnxruntime-node"
import * as Export from "../../../src/backend/onnx/Export.ts"
import * as Config from "../../../src/llama/Config.ts"
import * as Transformer from "../../../src/llama/Transformer.ts"
import { causal } from "../../../src/llama/Visibility.ts"
import * as Program from "../../../src/tensor/Program.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { mapAs } from "../../../src/tensor/Tree.ts"
import { agree, elements, evaluate } from "../../law/Evaluation.ts"
import { composed } from "../../law/Tolerance.ts"

const config = Config.make({
  vocabSize: 13, embedSize: 16, layerCount: 2, headCount: 4, kvHeadCount: 2, hiddenSize: 20, contextLength: 8
})
const model = Transformer.llama(config)
/** Numbers that a path and a place decide. */
const read = (path: string, length: number) =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * 1.7 + path.length + path.charCodeAt(path.length - 1)) / 2)

const lengths = new Map(Specification.leaves(model.specification).map(([path, { sizes }]) =>
  [path, Object.values(sizes).reduce((product, size) => product * size, 1)]))

describe("an exported program", () => {
  it.live.each([1, 2])("runs in ONNX Runtime, under its own names and sizes, with a batch of %d", (batch) =>
    Effect.gen(function*() {
      const sizes = { batch, position: 7 }
      const fileSystem = yield* FileSystem.FileSystem
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      const program = yield* Program.makeGeneric("logits", {
        inputs: { ids: Specification.ids(sizes) }, state: model.specification
      }, ({ ids }, parameters) => ({
        outputs: { logits: model.logits(parameters, model.hidden(parameters, { ids, visibility: causal })) }
      }))
      yield* Export.write(folder, program, (path) => Effect.succeed(read(path, lengths.get(path)!)))
      const session = yield* Effect.promise(() => Ort.InferenceSession.create(`${folder}/${Export.modelName}`))
      assert.deepStrictEqual([session.inputNames, session.outputNames], [["ids"], ["logits"]])
      const ids = Int32Array.from({ length: 7 * batch }, (_, i) => (i * 5) % 13)
      const { logits } = yield* Effect.promise(() => session.run({ ids: new Ort.Tensor("int32", ids, [batch, 7]) }))
      const expected = evaluate(() => {
        const parameters = mapAs<Transformer.LlamaParameters>()(model.specification, Specification.isSpecification,
          ({ sizes }, path) => T.values(sizes, read(path, lengths.get(path)!)))
        const hidden = model.hidden(parameters, { ids: T.ids(sizes, [...ids]), visibility: causal })
        return { logits: model.logits(parameters, hidden) }
      })
      assert.deepStrictEqual(logits?.dims, [batch, 7, 13])
      agree([...logits!.data as Float32Array], elements(expected.logits, ["batch", "position", "vocab"]), composed)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("finds the largest, a NaN included, without branches", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      const program = yield* Program.make("largest", {
        inputs: { x: Specification.real({ batch: 6, embed: 4 }) }, state: {}
      }, ({ x }) => ({ outputs: { y: T.max(x, "embed") } }))
      yield* Export.write(folder, program, () => Effect.succeed(new Float32Array(0)))
      assert.notInclude((yield* fileSystem.readFileString(`${folder}/${Export.modelName}`)), "then_branch")
      const session = yield* Effect.promise(() => Ort.InferenceSession.create(`${folder}/${Export.modelName}`))
      const rows = [
        [-1, 2, 1, 0], [3e38, -3e38, 3e38, -3e38], [1, Infinity, NaN, 2], [-Infinity, 5, Infinity, 5],
        [-3, NaN, -1, -2], [-Infinity, -Infinity, -Infinity, -Infinity]
      ]
      const x = new Ort.Tensor("float32", Float32Array.from(rows.flat()), [6, 4])
      const { y } = yield* Effect.promise(() => session.run({ x }))
      assert.deepStrictEqual(y!.data, Float32Array.from(rows, (row) => Math.max(...row)))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("replaces no cells, and is given all numbers of those it reads", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const folder = yield* fileSystem.makeTempDirectoryScoped()
      const state = { total: Specification.real({ embed: 2 }) }
      const counting = yield* Program.makeGeneric("counting", { inputs: {}, state }, (_, { total }) =>
        ({ outputs: { total }, state: { total: T.add(total, 1) } }))
      const none = () => Effect.succeed(new Float32Array(1))
      assert.strictEqual((yield* Effect.flip(Export.write(folder, counting, none))).message,
        "counting cannot be exported: it replaces the cells total\n  Export a program that reads cells and gives " +
          "outputs.")
      const plain = yield* Program.makeGeneric("plain", { inputs: {}, state }, (_, { total }) =>
        ({ outputs: { twice: T.multiply(total, 2) } }))
      assert.include((yield* Effect.flip(Export.write(folder, plain, none))).message,
        "cell total has 2 numbers, and 1 were given")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { elementCount, elements, elementTypes, encodeModel, type Graph } from "../../src/backend/onnx/ModelProto.ts"
import * as Onnx from "../../src/format/Onnx.ts"
import * as Protobuf from "../../src/format/Protobuf.ts"
import type * as TensorFile from "../../src/format/TensorFile.ts"
import * as Disk from "./Disk.ts"
import * as Fixture from "./Fixture.ts"

const names = {
  f32: "F32", f64: "F64", i32: "I32", i64: "I64", bool: "BOOL", u8: "U8", f16: "F16", bf16: "BF16", i8: "I8"
}
const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 6 }).filter((text) => !/\p{Surrogate}/u.test(text))
const value = fc.record({
  name,
  type: fc.constantFrom(...elementTypes),
  sizes: fc.array(fc.oneof(fc.nat(4), fc.constant(300)), { maxLength: 2 })
})
const graphs: fc.Arbitrary<Graph> = fc.record({
  nodes: fc.array(fc.record({
    op: fc.constantFrom("Add", "MatMul", "__proto__"), inputs: fc.array(name, { maxLength: 2 }),
    outputs: fc.array(name, { maxLength: 2 })
  }), { maxLength: 5 }),
  inputs: fc.array(value, { maxLength: 3 }),
  outputs: fc.array(value, { maxLength: 3 }),
  initializers: fc.uniqueArray(value, { selector: ({ name }) => name, maxLength: 4 }).map((values) =>
    values.map((value) => ({
      ...value, bytes: new Uint8Array(elementCount(value.sizes) * elements[value.type].bytes).fill(255)
    })))
})

const read = (model: Uint8Array, beside: Readonly<Record<string, Uint8Array>> = {}, traffic?: Disk.Traffic) =>
  Disk.run({ "/m/a.onnx": model, ...beside }, Onnx.open("/m/a.onnx"), traffic)

type Body = (writer: Protobuf.Writer) => void
const bytesOf = (body: Body): Uint8Array => {
  const writer = Protobuf.writer()
  body(writer)
  return Protobuf.written(writer)
}
const message = (field: number, ...bodies: ReadonlyArray<Body>): Body => (writer) =>
  Protobuf.writeMessage(writer, field, (writer) => bodies.forEach((body) => body(writer)))
const int = (field: number, value: number): Body => (writer) => Protobuf.writeInt(writer, field, value)
const text = (field: number, value: string): Body => (writer) => Protobuf.writeText(writer, field, value)
const bytes = (field: number, ...value: ReadonlyArray<number>): Body => (writer) =>
  Protobuf.writeBytes(writer, field, Uint8Array.from(value))
const modelOf = (...graph: ReadonlyArray<Body>): Uint8Array => bytesOf((writer) => {
  int(1, 10)(writer)
  message(7, ...graph)(writer)
})
const tensorOf = (...bodies: ReadonlyArray<Body>): Body => message(5, text(8, "w"), int(2, 1), ...bodies)
const beside = (...said: ReadonlyArray<readonly [string, string]>): Body => tensorOf(
  int(1, 2), int(14, 1), ...said.map(([key, value]) => message(13, text(1, key), text(2, value)))
)

/** The place and the invariant of the one problem of a model. */
const problemOf = async (model: Uint8Array, files: Readonly<Record<string, Uint8Array>> = {}): Promise<string> => {
  const error = await Disk.run({ "/m/a.onnx": model, ...files }, Effect.flip(Onnx.open("/m/a.onnx")))
  if (error._tag !== "TensorFileError") return assert.fail(error.message)
  assert.match(error.message, /^\/m\/a\.onnx: cannot read this as ONNX\n {2}/)
  return error.message.split("\n")[1]!.trim()
}

describe("ONNX models", () => {
  it("that are written are read: tensors, inputs, outputs and operators", () =>
    fc.assert(fc.asyncProperty(graphs, async (graph) => {
      const model = await read(encodeModel(graph))
      const plain = ({ name, sizes, type }: Graph["inputs"][number]) => ({ name, type: names[type], sizes })
      assert.deepStrictEqual(model.inputs, graph.inputs.map(plain))
      assert.deepStrictEqual(model.outputs, graph.outputs.map(plain))
      assert.deepStrictEqual(model.tensors,
        graph.initializers.map((tensor) => ({ ...plain(tensor), bytes: tensor.bytes.length })))
      for (const [op, count] of model.operators) {
        assert.strictEqual(count, graph.nodes.filter((node) => node.op === op).length)
      }
      assert.strictEqual([...model.operators.values()].reduce((sum, count) => sum + count, 0), graph.nodes.length)
      assert.deepStrictEqual([...model.opsets], [["ai.onnx", 23], ["com.microsoft", 1]])
      assert.deepStrictEqual([model.irVersion, model.producer, model.unlisted], [10, "cria", 0])
    }), { numRuns: 60 }))

  it.each(["inline", "external"])("of Python's onnx package are listed as it lists them: %s", async (which) => {
    const files = Fixture.files("onnx")
    const model = await Disk.run(files, Onnx.open(`/onnx/${which}.onnx`))
    const listed = JSON.parse(new TextDecoder().decode(files["/onnx/listed.json"]))[which]
    assert.deepStrictEqual({
      irVersion: model.irVersion, producer: model.producer, opsets: Object.fromEntries(model.opsets),
      metadata: Object.fromEntries(model.metadata), inputs: model.inputs, outputs: model.outputs,
      operators: Object.fromEntries(model.operators),
      tensors: model.tensors.map(({ beside, name, sizes, type }) =>
        ({ name, type, sizes, ...beside === undefined ? {} : { beside } }))
    }, listed)
    assert.strictEqual(model.unlisted, 2)
    assert.deepInclude(model.tensors, { name: "quarters", type: "I4", sizes: [3], bytes: 2 })
  })

  it("are looked at without their numbers", async () => {
    const bytes = new Uint8Array(2 ** 22)
    const traffic: Disk.Traffic = { bytes: 0, largest: 0 }
    const large = { type: "u8" as const, sizes: [2 ** 22], bytes }
    const graph = { nodes: [], inputs: [], outputs: [], initializers: ["a", "b"].map((name) => ({ ...large, name })) }
    assert.deepStrictEqual((await read(encodeModel(graph), {}, traffic)).tensors.map(({ bytes }) => bytes),
      [2 ** 22, 2 ** 22])
    assert.isAtMost(traffic.bytes, 3 * 2 ** 14)
  })

  it("have sizes one by one or packed, and names for sizes that are not fixed", async () => {
    const port = message(11, text(1, "x"), message(2, message(1, int(1, 1), message(2, message(1, text(2, "n"))))))
    const packed = tensorOf(bytes(1, 2, 0x80, 2), bytes(9, ...new Uint8Array(2048)))
    const { inputs, tensors } = await read(modelOf(port, packed))
    assert.deepStrictEqual(tensors, [{ name: "w", type: "F32", sizes: [2, 256], bytes: 2048 }])
    assert.deepStrictEqual(inputs, [{ name: "x", type: "F32", sizes: ["n"] }])
  })

  it("say where damage is", async () => {
    const is = async (expected: string, model: Uint8Array, files?: Readonly<Record<string, Uint8Array>>) =>
      assert.strictEqual(await problemOf(model, files), expected)
    await is("not ONNX: byte 0: expected one graph and an IR version from 1; found 0 graphs, IR version 0",
      new Uint8Array(0))
    await is("wire format: byte 0: expected a field number from 1 to 536870911 in a model; found 0", new Uint8Array(9))
    await is("wire format: byte 0: expected wire type 0, 1, 2 or 5 in a model; found 3, of field 1", Uint8Array.of(11))
    await is("wire format: byte 0: expected the key of a field in a model; found none that ends (more than 10 bytes)",
      new Uint8Array(40).fill(255))
    await is("wire format: byte 1: expected field 1 in a model; found none that ends (end of message)",
      Uint8Array.of(8, 255))
    await is("wire format: byte 2: expected field 7 of at most 1 bytes in a model; found 100 bytes",
      Uint8Array.of(0x3a, 100, 0))
    await is("wire format: byte 6: expected field 1 of at most 0 bytes in a graph; found 2 bytes",
      Uint8Array.of(8, 10, 0x3a, 2, 0x0a, 2, 0x22, 0))
    await is("wire format: byte 0: expected a length in field 7 in a model; found wire type 0", Uint8Array.of(0x38, 0))
    await is("wire format: byte 0: expected a number in field 1 in a model; found wire type 5",
      Uint8Array.of(0x0d, 0, 0, 0, 0))
    await is('text: byte 8: expected UTF-8; found "\uFFFD"', modelOf(message(1, bytes(4, 255))))
    await is("missing name: byte 6: expected the name of an operator; found none", modelOf(message(1)))
    await is("missing name: byte 6: expected the name of a tensor; found none", modelOf(message(5)))
    await is("missing name: byte 6: expected the name of an input or output; found none", modelOf(message(12)))
    await is('duplicate name: tensor "w", byte 15: expected each name once; found it twice',
      modelOf(tensorOf(int(1, 0)), tensorOf(int(1, 0))))
    await is('unknown type: tensor "w", byte 6: expected a type from 1 to 26; found 99', modelOf(tensorOf(int(2, 99))))
    await is('unknown type: byte 6: expected a type from 1 to 26 of "x"; found 99',
      modelOf(message(11, text(1, "x"), message(2, message(1, int(1, 99))))))
    await is('unfit sizes: tensor "w", byte 6: expected 8 bytes for F32 [2]; found 3 bytes',
      modelOf(tensorOf(int(1, 2), bytes(9, 0, 0, 0))))
    await is('unfit sizes: tensor "w", byte 6: expected numbers for F32 [2]; found 0 at most',
      modelOf(tensorOf(int(1, 2))))
    const impossible = "expected sizes of at least 0, of fewer than 2^53 bytes in all"
    await is(`unfit sizes: tensor "w", byte 6: ${impossible}; found F32 [-1]`, modelOf(tensorOf(int(1, -1))))
    await is(`unfit sizes: tensor "w", byte 6: ${impossible}; found F32 [${2 ** 40}, ${2 ** 40}]`,
      modelOf(tensorOf(int(1, 2 ** 40), int(1, 2 ** 40))))
    await is("too many: byte 8: expected at most 64 in field 1 of a tensor; found more",
      modelOf(tensorOf(...Array.from({ length: 65 }, () => int(1, 1)))))
    await is('duplicate name: byte 7: expected each name once; found "k" twice', bytesOf((writer) => {
      message(14, text(1, "k"))(writer)
      message(14, text(1, "k"))(writer)
    }))
  })

  it("stand in each other so deep and no deeper", async () => {
    const nested = (depth: number): Body => depth === 0 ? message(1, text(4, "Add"))
      : message(1, text(4, "If"), message(5, message(6, nested(depth - 1))))
    assert.deepStrictEqual([...(await read(modelOf(nested(30)))).operators], [["Add", 1], ["If", 30]])
    assert.match(await problemOf(modelOf(nested(200))), /^too many: byte \d+: expected graphs at most 32 deep; found/)
  })

  it("name files of the folder, which are there and long enough", async () => {
    const is = async (expected: string, model: Uint8Array, files?: Readonly<Record<string, Uint8Array>>) =>
      assert.strictEqual(await problemOf(model, files), expected)
    const data = { "/m/d": new Uint8Array(12) }
    const whole = await read(modelOf(beside(["location", "d"], ["offset", "4"], ["length", "8"])), data)
    assert.deepStrictEqual(whole.tensors,
      [{ name: "w", type: "F32", sizes: [2], bytes: 8, beside: { file: "d", offset: 4 } }])
    for (const path of ["../d", "/m/d", "", "a/../d", "a\\d", "c:d", ".", "a//d"]) {
      await is(`external data: tensor "w", byte 6: expected a location that is a file in the folder of the model; ` +
        `found ${JSON.stringify(path)}`, modelOf(beside(["location", path])), data)
    }
    const expected = 'external data: tensor "w", byte 6: expected a whole offset and length 8; found '
    await is(`${expected}offset "-1", length "8"`, modelOf(beside(["location", "d"], ["offset", "-1"])), data)
    await is(`${expected}offset "0", length "9"`, modelOf(beside(["location", "d"], ["length", "9"])), data)
    await is('missing data: tensor "w", byte 6: expected the file d beside the model; found no such file',
      modelOf(beside(["location", "d"])))
    await is('outside the file: tensor "w", byte 6: expected 8 bytes from byte 5 of d; found 12 bytes in all',
      modelOf(beside(["location", "d"], ["offset", "5"])), data)
  })

  it("tell what to do", async () => {
    const error = await Disk.run({ "/a.onnx": Uint8Array.of(8) }, Effect.flip(Onnx.open("/a.onnx"))) as
      TensorFile.TensorFileError
    assert.strictEqual(error.message, [
      "/a.onnx: cannot read this as ONNX",
      "  wire format: byte 1: expected field 1 in a model; found none that ends (end of message)",
      "Likely cause, and what to do:",
      "  wire format: the file was cut short, as by an interrupted download, or bytes were damaged: fetch it again"
    ].join("\n"))
  })
})

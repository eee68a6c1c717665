import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import {
  type Attribute, elementCount, elements, elementTypeOf, elementTypes, encodeModel, type Graph, type Node, type Tensor,
  type Value
} from "../../../src/backend/onnx/ModelProto.ts"

/** Protobuf read back by other means than those that wrote it: BigInt varints, one record of fields a message. */
type Fields = Record<number, Array<bigint | Uint8Array>>

const read = (bytes: Uint8Array): Fields => {
  const fields: Fields = {}
  let at = 0
  const varint = (): bigint => {
    let result = 0n
    for (let shift = 0n;; shift += 7n) {
      const byte = BigInt(bytes[at++]!)
      result |= (byte & 127n) << shift
      if (byte < 128n) return result
    }
  }
  const take = (length: number): Uint8Array => {
    assert.isAtMost(at + length, bytes.length)
    return bytes.subarray(at, at += length)
  }
  while (at < bytes.length) {
    const tag = Number(varint())
    const field = fields[tag >> 3] ??= []
    field.push((tag & 7) === 0 ? varint() : (tag & 7) === 5 ? take(4) : take(Number(varint())))
  }
  return fields
}

const blob = (value: bigint | Uint8Array | undefined): Uint8Array => {
  if (value instanceof Uint8Array) return value
  throw new Error(`expected bytes, found ${value}`)
}
const text = (value: bigint | Uint8Array | undefined): string => new TextDecoder().decode(blob(value))
const int = (value: bigint | Uint8Array | undefined): number => Number(BigInt.asIntN(64, BigInt(value as bigint)))
const float = (value: bigint | Uint8Array): number => {
  const bytes = blob(value)
  return new DataView(bytes.buffer, bytes.byteOffset).getFloat32(0, true)
}

const readTensor = (bytes: Uint8Array): { name: string } & Tensor => {
  const fields = read(bytes)
  return {
    name: fields[8] === undefined ? "" : text(fields[8][0]),
    type: elementTypeOf(int(fields[2]![0]))!,
    sizes: (fields[1] ?? []).map(int),
    bytes: Uint8Array.from(blob(fields[9]![0]))
  }
}

const readValue = (bytes: Uint8Array): Value => {
  const fields = read(bytes)
  const tensor = read(blob(read(blob(fields[2]![0]))[1]![0]))
  const sizes = (read(blob(tensor[2]![0]))[1] ?? []).map((size) => int(read(blob(size))[1]![0]))
  return { name: text(fields[1]![0]), type: elementTypeOf(int(tensor[1]![0]))!, sizes }
}

const readAttribute = (bytes: Uint8Array): [string, Attribute] => {
  const fields = read(bytes)
  const attributes: Record<number, () => Attribute> = {
    1: () => ({ float: float(fields[2]![0]!) }),
    2: () => ({ int: int(fields[3]![0]) }),
    3: () => ({ string: text(fields[4]![0]) }),
    4: () => {
      const { name, ...tensor } = readTensor(blob(fields[5]![0]))
      assert.strictEqual(name, "")
      return { tensor }
    },
    5: () => ({ graph: readGraph(blob(fields[6]![0])) }),
    6: () => ({ floats: (fields[7] ?? []).map(float) }),
    7: () => ({ ints: (fields[8] ?? []).map(int) })
  }
  return [text(fields[1]![0]), attributes[int(fields[20]![0])]!()]
}

const readNode = (bytes: Uint8Array): Node => {
  const fields = read(bytes)
  return {
    inputs: (fields[1] ?? []).map(text),
    outputs: (fields[2] ?? []).map(text),
    op: text(fields[4]![0]),
    attributes: Object.fromEntries((fields[5] ?? []).map((attribute) => readAttribute(blob(attribute)))),
    domain: text(fields[7]![0])
  }
}

const readGraph = (bytes: Uint8Array): Graph => {
  const fields = read(bytes)
  const all = <A>(field: number, of: (bytes: Uint8Array) => A): Array<A> =>
    (fields[field] ?? []).map((bytes) => of(blob(bytes)))
  return {
    nodes: all(1, readNode),
    name: text(fields[2]![0]),
    initializers: all(5, readTensor),
    inputs: all(11, readValue),
    outputs: all(12, readValue)
  }
}

const unicode = fc.string({ unit: "binary", minLength: 1 })
const name = fc.oneof(fc.string({ minLength: 1 }), unicode, fc.constantFrom("x".repeat(300), "\u007f", "\u0080é"))
  .filter((value) => value === new TextDecoder().decode(new TextEncoder().encode(value)) && value !== "__proto__")
const sizes = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 })
const value = fc.record({ name, type: fc.constantFrom(...elementTypes), sizes })
const tensor = fc.tuple(fc.constantFrom(...elementTypes), sizes).chain(([type, sizes]) => {
  const length = elementCount(sizes) * elements[type].bytes
  return fc.record({
    type: fc.constant(type),
    sizes: fc.constant(sizes),
    bytes: fc.uint8Array({ minLength: length, maxLength: length })
  })
})
const initializer = fc.tuple(name, tensor).map(([name, tensor]) => ({ name, ...tensor }))
const edges = fc.constantFrom(-1, 0, 127, 128, 2 ** 31, 2 ** 32, -(2 ** 31), -(2 ** 32), 2 ** 35)
const integer = fc.oneof(fc.integer(), fc.maxSafeInteger(), edges)
const float32 = fc.float({ noNaN: true })
const { graph } = fc.letrec<{ graph: Graph; attribute: Attribute }>((tie) => ({
  attribute: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    integer.map((int) => ({ int })),
    float32.map((float) => ({ float })),
    fc.array(integer).map((ints) => ({ ints })),
    fc.array(float32).map((floats) => ({ floats })),
    name.map((string) => ({ string })),
    tensor.map((tensor) => ({ tensor })),
    tie("graph").map((graph) => ({ graph }))
  ),
  graph: fc.record({
    nodes: fc.array(fc.record({
      inputs: fc.array(fc.oneof(name, fc.constant("")), { maxLength: 3 }),
      outputs: fc.array(name, { maxLength: 2 }),
      op: name,
      attributes: fc.dictionary(name, tie("attribute"), { maxKeys: 2, noNullPrototype: true }),
      domain: fc.constantFrom("", "com.microsoft")
    }), { maxLength: 3 }),
    name,
    initializers: fc.array(initializer, { maxLength: 2 }),
    inputs: fc.array(value, { maxLength: 2 }),
    outputs: fc.array(value, { maxLength: 2 })
  })
}))

const empty: Graph = { nodes: [], inputs: [], outputs: [], initializers: [] }
const node = (attributes: Record<string, Attribute>): Graph => ({
  ...empty,
  nodes: [{ op: "Softmax", inputs: ["x"], outputs: ["y"], attributes }]
})

describe("ModelProto", () => {
  it("writes graphs that another reader gives back whole", () => {
    fc.assert(fc.property(graph, (graph) => {
      const model = read(encodeModel(graph))
      assert.deepStrictEqual(readGraph(blob(model[7]![0])), graph)
    }))
  })

  it("declares IR version 10, the opset asked for and com.microsoft", () => {
    for (const [options, opset] of [[{}, 23], [{ opset: 21 }, 21]] as const) {
      const model = read(encodeModel(empty, options))
      assert.strictEqual(int(model[1]![0]), 10)
      const opsets = model[8]!.map((bytes) => read(blob(bytes)))
      assert.deepStrictEqual(opsets.map((fields) => [text(fields[1]![0]), int(fields[2]![0])]), [
        ["", opset],
        ["com.microsoft", 1]
      ])
    }
  })

  it("names a node after its first output, which the engine's errors quote", () => {
    const graph = { ...empty, nodes: [{ op: "Split", inputs: ["x"], outputs: ["", "rest"] }] }
    const written = read(blob(read(blob(read(encodeModel(graph))[7]![0]))[1]![0]))
    assert.strictEqual(text(written[3]![0]), "rest")
  })

  it("refuses integers that are none", () => {
    for (const attributes of [{ axis: { int: 0.5 } }, { axis: { ints: [1, 0.5] } }]) {
      assert.throws(
        () => encodeModel(node(attributes)),
        "attribute axis of Softmax (y) must be an integer below 2^53 in size, not 0.5: "
          + "write { float: 0.5 } where the operator takes a float"
      )
    }
  })

  it("refuses constants whose bytes do not fill their sizes", () => {
    const constant = { name: "w", type: "f64", sizes: [2, 3], bytes: new Uint8Array(6) } as const
    assert.throws(
      () => encodeModel({ ...empty, initializers: [constant] }),
      "constant w: f64 [2, 3] takes 48 bytes, not 6: pass the bytes of the whole tensor "
        + "(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))"
    )
  })
})

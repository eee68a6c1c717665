/**
 * The graph that a program becomes: its ends, what is left out, and how the less obvious primitives are written.
 */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { emit, type Emitted, readsOf } from "../../../src/backend/onnx/Emit.ts"
import { hasKernel } from "../../../src/backend/onnx/Kernel.ts"
import { placement } from "../../../src/backend/onnx/Placement.ts"
import { elementCount } from "../../../src/backend/onnx/ModelProto.ts"
import { barrier } from "../../../src/tensor/Composite.ts"
import type { Lowered, Port } from "../../../src/tensor/Instruction.ts"
import { type End, lower } from "../../../src/tensor/Lower.ts"
import { type Any, make, type Sizes, type Untyped } from "../../../src/tensor/Node.ts"
import { rewrite } from "../../../src/tensor/Rewrite.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import { type Computation, leavesOf } from "../../../src/testing/Computation.ts"
import { programs } from "../../../src/testing/ProgramArbitrary.ts"
import { gradients } from "../../../src/testing/TensorLaw.ts"

interface Written {
  readonly outputs?: Readonly<Record<string, Any>>
  readonly writes?: Readonly<Record<string, Any>>
}

/** The lowered program of a function of an input x and a cell w. */
const lowered = (sizes: Sizes, f: (x: Untyped, w: Untyped) => Written): Lowered => {
  const x: Untyped = make({ _tag: "Leaf", role: "input", name: "x" }, [], sizes, "real")
  const w: Untyped = make({ _tag: "Leaf", role: "cell", name: "w" }, [], sizes, "real")
  const { outputs = {}, writes = {} } = f(x, w)
  const ends = (named: Readonly<Record<string, Any>>): ReadonlyArray<End> =>
    Object.entries(named).map(([name, node]) => ({ name, node, sizes: node.sizes }))
  return lower({
    inputs: [["x", x]], cells: [["w", w]], outputs: ends(outputs), writes: ends(writes), watched: []
  })
}

const graphOf = (sizes: Sizes, f: (x: Untyped, w: Untyped) => Written): Emitted =>
  emit(lowered(sizes, f), "f32", new Map())

const ends = (values: Emitted["graph"]["inputs"]): ReadonlyArray<string> =>
  values.map(({ name, sizes }) => `${name} [${sizes.join()}]`)

const operators = ({ graph }: Emitted): ReadonlyArray<string> => graph.nodes.map(({ op }) => op)

const flat = (x: Untyped): Untyped => T.merge(x, ["i", "j"], "k")

describe("leaves", () => {
  const sizes = { i: 2, j: 3 }
  it("are declared in the shape of their only reshape", () => {
    const emitted = graphOf(sizes, (x) => ({ outputs: { y: T.exp(flat(x)) } }))
    assert.deepStrictEqual(ends(emitted.graph.inputs), ["input:x [6]"])
    assert.deepStrictEqual(operators(emitted), ["Exp"])
  })
  it("are declared as they are where something else reads them, or they are results", () => {
    const read = graphOf(sizes, (x) => ({ outputs: { y: T.exp(flat(x)), z: T.exp(x) } }))
    assert.deepStrictEqual(ends(read.graph.inputs), ["input:x [2,3]"])
    const result = graphOf(sizes, (x) => ({ outputs: { y: T.exp(flat(x)), z: x } }))
    assert.deepStrictEqual(ends(result.graph.inputs), ["input:x [2,3]"])
    assert.deepStrictEqual(operators(result), ["Reshape", "Exp", "Identity"])
  })
  it("are left out where nothing reads them", () => {
    assert.deepStrictEqual(graphOf(sizes, (x) => ({ outputs: { y: T.exp(x) } })).graph.inputs.length, 1)
  })
  it("are constants where they are frozen, whatever an input of the same name is", () => {
    const program = lowered(sizes, (x, w) => ({ outputs: { y: T.multiply(x, w) } }))
    const named: Lowered = { ...program, inputs: program.inputs.map((port) => ({ ...port, name: "w" })) }
    const { graph } = emit(named, "f32", new Map([["w", new Uint8Array(24)]]))
    assert.deepStrictEqual(ends(graph.inputs), ["input:w [2,3]"])
    assert.deepStrictEqual(ends(graph.initializers), ["cell:w [2,3]"])
  })
})

describe("names", () => {
  const sizes = { i: 2, j: 3 }
  it("that users give are never those that the graph makes for itself", () => {
    const program = lowered(sizes, (x, w) => {
      const sum = T.add(T.multiply(x, w), T.values({ j: 3 }, [1, 2, 3]))
      return { outputs: { y: T.sum(T.rsqrt(sum), "i"), z: flat(sum) }, writes: { w: T.exp(sum) } }
    })
    const ports = [...program.inputs, ...program.cells, ...program.outputs, ...program.writes]
    const own = emit(program, "f32", new Map()).graph
    const taken = [...own.nodes.flatMap(({ outputs }) => outputs), ...own.initializers.map(({ name }) => name)]
    for (const name of ["v0", "v1", "v2", "t0", "c0", ...taken]) {
      const renamed = ([port]: ReadonlyArray<Port>, others: ReadonlyArray<Port>): ReadonlyArray<Port> =>
        port === undefined ? [] : [{ ...port, name }, ...others]
      const { cells, inputs, outputs, writes } = program
      const { graph } = emit({ ...program, cells: renamed(cells, []), inputs: renamed(inputs, []),
        outputs: renamed(outputs, outputs.slice(1)), writes: renamed(writes, []) }, "f32", new Map())
      const defined = [...graph.inputs.map((input) => input.name), ...graph.initializers.map((value) => value.name),
        ...graph.nodes.flatMap((node) => node.outputs)]
      assert.strictEqual(new Set(defined).size, defined.length, `${name} is there twice`)
      assert.strictEqual(graph.outputs.length, ports.length - 2)
    }
  })
})

describe("results", () => {
  const sizes = { i: 2, j: 3 }
  it("are computed under their names, before a last reshape", () => {
    const emitted = graphOf(sizes, (x, w) => ({ outputs: { y: flat(T.exp(x)) }, writes: { w: T.add(w, x) } }))
    assert.deepStrictEqual(ends(emitted.graph.outputs), ["write:w [2,3]", "output:y [2,3]"])
    assert.deepStrictEqual(operators(emitted), ["Exp", "Add"])
  })
  it("are computed under their names where several reshapes end them, and where others read them", () => {
    const emitted = graphOf({ i: 4, j: 6 }, (x) => {
      const y: Untyped = T.merge(T.split(T.exp(x), "j", { a: 2, b: 3 }) as Untyped, ["i", "a"], "c")
      return { outputs: { y, z: T.sum(T.split(T.merge(y, ["c", "b"], "d") as Untyped, "d", { e: 4, f: 6 }), ["f"]) } }
    })
    assert.deepStrictEqual(operators(emitted).filter((op) => op !== "Reshape"), ["Exp", "ReduceSum"])
    assert.strictEqual(emitted.graph.nodes[0]?.outputs[0], "output:y")
  })
  it("are copied where their value has a name already", () => {
    const { graph } = graphOf(sizes, (x) => ({ outputs: { y: T.exp(x), z: T.exp(x), x }, writes: { w: T.exp(x) } }))
    assert.deepStrictEqual(graph.nodes.map(({ inputs, op, outputs }) => [op, ...inputs, ...outputs].join(" ")), [
      "Exp input:x write:w", "Identity write:w output:y", "Identity write:w output:z", "Identity input:x output:x"
    ])
  })
})

describe("operators", () => {
  it("scatter into the cell itself, in its own shape", () => {
    const { graph } = graphOf({ i: 4, j: 3 }, (x, w) => {
      const values = T.split(T.slice(x, "i", 0, 4), "i", { p: 2, q: 2 })
      return { writes: { w: T.put(w, "i", T.ids({ p: 2, q: 2 }, [3, 1, 0, 1]), values as never, "add") } }
    })
    const scatter = graph.nodes.find(({ op }) => op === "ScatterElements")
    assert.deepStrictEqual([scatter?.inputs[0], scatter?.outputs[0]], ["cell:w", "write:w"])
  })
  it("scatter into a cell that is cleared before, where they would into zeros", () => {
    const rows = (x: Untyped): Untyped => T.rename(T.slice(x, "i", 0, 2), "i", "p")
    const zeros: Untyped = T.fill({ i: 4, j: 3 }, 0)
    const put = (x: Untyped): Untyped => T.put(zeros, "i", T.ids({ p: 2 }, [3, 1]), rows(x) as never, "add")
    const unread = graphOf({ i: 4, j: 3 }, (x) => ({ writes: { w: put(x) } }))
    assert.deepStrictEqual(unread.cleared, ["w"])
    assert.deepStrictEqual(ends(unread.graph.inputs), ["input:x [4,3]", "cell:w [4,3]"])
    assert.notInclude(operators(unread), "Identity")
    assert.deepStrictEqual(graphOf({ i: 4, j: 3 }, (x, w) => ({ outputs: { w }, writes: { w: put(x) } })).cleared, [])
    assert.deepStrictEqual(graphOf({ i: 4, j: 3 }, (x) => ({ outputs: { zeros }, writes: { w: put(x) } })).cleared, [])
    assert.deepStrictEqual(graphOf({ i: 4, j: 3 }, (x) => ({ outputs: { y: put(x) } })).cleared, [])
  })
  it("add a product as part of the product", () => {
    const sum = (f: (x: Untyped, w: Untyped) => Untyped) =>
      operators(graphOf({ i: 4, j: 4 }, (x, w) => ({ outputs: { y: f(x, w) } })))
    const product = (x: Untyped, y: Untyped): Untyped => T.contract(T.rename(x, "j", "k"), T.rename(y, "i", "k"), "k")
    assert.deepStrictEqual(sum((x, w) => T.add(product(x, w), x)), ["Gemm"])
    assert.deepStrictEqual(sum((x, w) => T.add(x, T.multiply(product(x, w), 0.5))), ["Gemm"])
    assert.deepStrictEqual(sum((x, w) => T.add(product(x, w), product(w, x))), ["MatMul", "Gemm"])
    assert.deepStrictEqual(sum((x, w) => T.add(product(x, w), T.sum(x, "i"))), ["MatMul", "ReduceSum", "Add"])
    const twice = sum((x, w) => T.multiply(T.add(product(x, w), x), product(x, w)))
    assert.deepStrictEqual(twice, ["MatMul", "Add", "Mul"])
    const none = (x: Untyped, axis: string): Untyped => T.rename(T.slice(x, axis, 0, 0), axis, "k")
    const ofNothing = sum((x, w) => T.add(T.contract(none(x, "j"), none(w, "i"), "k"), x))
    assert.deepStrictEqual(ofNothing, ["Add"]) // of zeros
  })
  it("add a product to a cell of another shape where the cell lies", () => {
    const sizes = { i: 4, a: 2, b: 2 }
    const lying = (x: Untyped): Untyped => {
      const matrix = T.merge(x, ["a", "b"], "j")
      const square = T.contract(T.rename(matrix, "j", "k"), T.rename(matrix, "i", "k"), "k")
      return T.split(square, "j", { a: 2, b: 2 })
    }
    const emitted = graphOf(sizes, (x, w) => ({ writes: { w: T.add(w, lying(x)) } }))
    assert.deepStrictEqual(ends(emitted.graph.outputs), ["write:w [4,4]"])
    assert.deepStrictEqual(operators(emitted), ["Reshape", "Gemm"])
    assert.deepStrictEqual(placement(emitted.graph, [{ name: "w", value: 0, sizes }]).inPlace, ["w"])
    const also = graphOf(sizes, (x, w) => {
      const next = T.add(w, lying(x))
      return { outputs: { y: T.exp(next) }, writes: { w: next } }
    })
    assert.deepStrictEqual(ends(also.graph.outputs), ["write:w [4,2,2]", "output:y [4,2,2]"])
    assert.deepStrictEqual(operators(also), ["MatMul", "Reshape", "Add", "Exp"])
  })
  it("reshape nothing twice, nor back", () => {
    const emitted = graphOf({ i: 2, j: 6 }, (x) => {
      const cut = T.split(T.exp(x), "j", { a: 2, b: 3 })
      const back = T.merge(cut, ["a", "b"], "j")
      return { outputs: { y: T.negate(T.merge(cut, ["i", "a"], "k")), z: T.negate(back) } }
    })
    assert.deepStrictEqual(operators(emitted), ["Exp", "Reshape", "Neg", "Neg"])
  })
  it("reshape no constant: it is written in the shape in which it is read", () => {
    const emitted = graphOf({ i: 2, j: 3 }, (x) => ({ outputs: { y: T.multiply(x, T.values({ i: 2 }, [3, 4])) } }))
    assert.deepStrictEqual(operators(emitted), ["Mul"])
    assert.deepStrictEqual(ends(emitted.graph.initializers).map((each) => each.split(" ")[1]), ["[2,1]"])
  })
  it("choose rows of one table without looking for each element", () => {
    const sizes = { batch: 1, i: 4, j: 3 }
    const chosen = (batch: number) => operators(graphOf({ ...sizes, batch }, (x) => ({
      outputs: { y: T.exp(T.take(x, "i", T.ids({ batch, k: 2 }, Array.from({ length: 2 * batch }, (_, i) => i)))) }
    }))).filter((op) => op.startsWith("Gather"))
    assert.deepStrictEqual(chosen(1), ["Gather"])
    assert.deepStrictEqual(chosen(2), ["GatherElements"])
  })
  it("sum many squares as products of rows, few at once", () => {
    const sum = (sizes: Sizes) =>
      graphOf(sizes, (x) => ({ outputs: { y: T.sum(T.square(x), Object.keys(sizes)) } })).graph.nodes
    assert.deepStrictEqual(sum({ i: 100, j: 1000 }).map(({ op }) => op), ["Reshape", "FusedMatMul", "ReduceSum"])
    assert.deepStrictEqual(sum({ i: 10, j: 10 }).map(({ op }) => op), ["Reshape", "ReduceSumSquare"])
    assert.deepStrictEqual(sum({ i: 65_537 }).map(({ op }) => op), ["ReduceSumSquare"]) // a prime
  })
  it("look closely for a NaN among the largest only where a sum leaves a doubt, and always where branches wait", () => {
    const largest = (provider?: string) => {
      const program = lowered({ i: 2, j: 3 }, (x) => ({ outputs: { y: T.max(x, "j") } }))
      return operators(emit(program, "f32", new Map(), provider))
    }
    assert.deepStrictEqual(largest(), ["ReduceMax", "ReduceSum", "ReduceSum", "Equal", "If"])
    for (const provider of ["webgpu", "cuda"]) {
      assert.deepStrictEqual(largest(provider), ["ReduceMax", "Abs", "ReduceSum", "Equal", "Where"])
    }
  })
  it("fold transposes and a scale into a product", () => {
    const { graph } = graphOf({ i: 4, j: 3 }, (x, w) => ({
      outputs: { y: T.multiply(T.contract(x, T.rename(w, "j", "k"), "i"), 0.5) }
    }))
    assert.deepStrictEqual(graph.nodes.map(({ attributes, op }) => [op, attributes]), [
      ["FusedMatMul", { transA: { int: 1 }, transB: { int: 0 }, alpha: { float: 0.5 } }]
    ])
  })
  it("hold a value back behind another by a choice that no optimizer can see through", () => {
    const emitted = graphOf({ i: 2, j: 2 }, (x, w) => ({ outputs: { y: T.exp(x), z: T.exp(barrier(x, w)) } }))
    assert.sameMembers([...operators(emitted)], ["Exp", "Exp", "Where", "Or", "Not", "Equal", "Gather", "Reshape"])
    const choice = emitted.graph.nodes.find(({ op }) => op === "Where")
    const always = emitted.graph.nodes.find(({ outputs }) => outputs[0] === choice?.inputs[0])
    assert.strictEqual(always?.op, "Or") // of "the first element is itself" and its contrary
  })
  it("know their place", () => {
    const { places } = emit(lowered({ i: 2 }, (x) => ({
      outputs: { y: T.within("block.3", () => T.take(x, "i", T.toIds(T.exp(x)).pipe(T.rename("i", "k")))) }
    })), "f32", new Map())
    assert.strictEqual(places.get("output:y"), "gather, in block.3")
  })
})

const isKept = (node: Any): boolean =>
  node.operation._tag === "Composite" && hasKernel(node.operation.composite, node.operands)

const loweredOf = ({ build, given }: Computation): Lowered => {
  const leaves = leavesOf(given)
  const outputs = build(leaves)
  const nodes = rewrite(outputs, isKept).map((node, i) => ({ name: String(i), node, sizes: node.sizes }))
  return lower({ inputs: Object.entries(leaves), cells: [], outputs: nodes, writes: [], watched: [] })
}

describe("every graph", () => {
  it("names everything before it is used, once, and holds nothing that no result needs", () =>
    fc.assert(fc.property(programs({ zero: true }), (program) => {
      const { graph } = emit(loweredOf(program), "f32", new Map())
      const known = new Set([...graph.inputs, ...graph.initializers].map(({ name }) => name))
      const used = new Set(graph.outputs.map(({ name }) => name))
      for (const node of graph.nodes) {
        const own = new Set(Object.values(node.attributes ?? {}).flatMap((attribute) =>
          "graph" in attribute ? attribute.graph.nodes.flatMap(({ outputs }) => outputs) : []))
        for (const name of readsOf(node)) assert.isTrue(known.has(name) || own.has(name), `${node.op} reads ${name}`)
        for (const name of node.outputs) assert.isFalse(known.has(name), `${name} is computed twice`)
        node.outputs.forEach((name) => known.add(name))
      }
      for (const node of graph.nodes) readsOf(node).forEach((name) => used.add(name))
      for (const { name } of graph.initializers) assert.isTrue(used.has(name), `${name} is read`)
      for (const { op, outputs } of graph.nodes) {
        assert.isTrue(outputs.some((name) => used.has(name)), `${op} is needed`)
      }
      for (const { name } of graph.outputs) assert.isTrue(known.has(name), `${name} is computed`)
    }), { numRuns: 200 }))
  it("shows no empty tensor to an operator", () =>
    fc.assert(fc.property(programs({ zero: true }), fc.boolean(), (program, isOfSlopes) => {
      const lowered = loweredOf(isOfSlopes ? gradients(program) : program)
      const { graph } = emit(lowered, "f32", new Map())
      const declared = [...graph.inputs, ...graph.initializers, ...graph.outputs]
      const empty = new Set(declared.filter(({ sizes, type }) => type !== "i64" && elementCount(sizes) === 0)
        .map(({ name }) => name))
      lowered.values.forEach(({ shape }, id) => elementCount(shape) === 0 && empty.add(`v${id}`))
      for (const { inputs, op } of graph.nodes) {
        if (op !== "Identity") assert.isFalse(inputs.some((name) => empty.has(name)), `${op} of ${inputs.join()}`)
      }
    }), { numRuns: 200 }))
})

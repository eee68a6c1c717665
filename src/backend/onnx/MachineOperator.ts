/**
 * Operators of Cria's own inside an ONNX graph: machine code, and the tables by which ONNX Runtime finds it.
 *
 * The engine asks an operator for its name and its types, has it compute, and offers its thread pool: every answer is a
 * function in memory. What computes gets the addresses of its operands and results, as one table, and the number of a
 * part; parts run on all threads. Sizes are fixed, so the code of an operator is made for one shape.
 *
 * From     onnxruntime_c_api.h, `OrtCustomOp` of API version 23; System V's ABI for x86-64.
 * Checked  test/backend/onnx/MachineOperator.test.ts.
 *
 * @module
 */
import {
  add, address, addNumber, assemble, at, call, type Code, copy, end, jumpIfNotEqual, load, multiply, place, pop, push,
  set, store, subtractNumber, test
} from "../machine/Assembler.ts"
import { elements, type ElementType } from "./ModelProto.ts"

/** The domain of these operators. */
export const machineDomain = "cria"

/** An operator of one shape. */
export interface MachineOperator {
  /** As nodes name it: one name, one code. */
  readonly name: string
  readonly inputs: ReadonlyArray<ElementType>
  readonly outputs: ReadonlyArray<{ readonly type: ElementType; readonly sizes: ReadonlyArray<number> }>
  /** A function of (the address of a table of addresses, of inputs and then of outputs; the number of a part). */
  readonly work: Uint8Array
  readonly parts: number
}

/** Functions of the engine, by address. */
export interface EngineFunctions {
  readonly getInput: number
  readonly getOutput: number
  readonly getData: number
  readonly parallelFor: number
}

/** The version of an operator's table. */
const version = 23

/** Functions and tables of some operators for memory that starts at `base`, and where the table of each stands. */
export const layOut = (
  operators: ReadonlyArray<MachineOperator>, base: number, functions: EngineFunctions
): { readonly bytes: Uint8Array; readonly tables: ReadonlyArray<number> } => {
  const pieces: Array<readonly [start: number, bytes: Uint8Array]> = []
  let length = 0
  const put = (bytes: Uint8Array): number => {
    const start = Math.ceil(length / 64) * 64
    pieces.push([start, bytes])
    length = start + bytes.length
    return base + start
  }
  const code = (...instructions: Code): number => put(assemble(instructions))
  const words = (values: ReadonlyArray<number>): number =>
    put(new Uint8Array(BigInt64Array.from(values, BigInt).buffer))
  const answer = (value: number): number => code(set("rax", value), end)
  const text = (content: string): number => put(new TextEncoder().encode(`${content}\0`))
  /** The answer to (the operator, an index). */
  const typeOf = (types: ReadonlyArray<ElementType>): number => {
    const table = words(types.map((type) => elements[type].code))
    return code(set("rax", table), multiply("rsi", "rsi", 8), add("rax", "rsi"), load("rax", at("rax")), end)
  }
  const zero = answer(0)
  const processor = answer(text("CPUExecutionProvider"))
  const create = code(store("rdi", at("rcx")), set("rax", 0), end) // what computes has all it needs in its code
  const tables = operators.map((operator) => {
    const sizes = operator.outputs.map(({ sizes }) => words(sizes))
    const compute = put(computation(operator, sizes, put(operator.work), functions))
    return words([
      version,
      0, // in the place of `create`, before version 16
      answer(text(operator.name)), processor,
      typeOf(operator.inputs), answer(operator.inputs.length),
      typeOf(operator.outputs.map(({ type }) => type)), answer(operator.outputs.length),
      0, // in the place of `compute`, before version 16
      zero, // nothing to destroy
      zero, zero, zero, // inputs and outputs are all there, inputs in memory of the provider
      zero, zero, zero, zero, // as many as there are
      create, compute,
      0, // the engine need not know sizes before it computes
      answer(1), answer(2 ** 31 - 1), // of every version of the domain
      0, 0, 0, 0 // no output lies where an input does, unless a binding says so
    ])
  })
  const bytes = new Uint8Array(length)
  for (const [start, piece] of pieces) bytes.set(piece, start)
  return { bytes, tables }
}

/** What the engine calls with (the operator, a context): finds operands and results, and runs the parts. */
const computation = (
  { inputs, outputs, parts }: MachineOperator, sizes: ReadonlyArray<number>, work: number, functions: EngineFunctions
): Uint8Array => {
  const failed = place("failed")
  const count = inputs.length + outputs.length
  const found = at("rsp", 8 * count) // behind the table that the parts are given
  const room = Math.ceil((8 * count + 8) / 16) * 16
  const ask = (name: keyof EngineFunctions): Code =>
    [set("rax", functions[name]), call("rax"), test("rax", "rax"), jumpIfNotEqual(failed)]
  const keep = (index: number): Code =>
    [load("rdi", found), address("rsi", at("rsp", 8 * index)), ...ask("getData")]
  return assemble([
    push("rbx"), subtractNumber("rsp", room), copy("rbx", "rsi"),
    ...inputs.flatMap((_, i) => [
      copy("rdi", "rbx"), set("rsi", i), address("rdx", found), ...ask("getInput"), ...keep(i)
    ]),
    ...outputs.flatMap((output, i) => [
      copy("rdi", "rbx"), set("rsi", i), set("rdx", sizes[i] ?? 0), set("rcx", output.sizes.length),
      address("r8", found), ...ask("getOutput"), ...keep(inputs.length + i)
    ]),
    copy("rdi", "rbx"), set("rsi", work), set("rdx", parts), set("rcx", 0), address("r8", at("rsp")),
    ...ask("parallelFor"),
    failed, // or not: what is returned is no failure, or the engine's own
    addNumber("rsp", room), pop("rbx"), end
  ])
}

/**
 * A lowered program as steps over places: made once, when the program is compiled.
 *
 * Values without elements never reach the engine, and neither do instructions that change nothing: their results are
 * other names of what they were given. Constants are uploaded here, once; a number everywhere is one number where it
 * broadcasts. A tensor is freed after the last step that reads it.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts, test/backend/tensorflow/Lifetime.test.ts.
 *
 * @module
 */
import type { Instruction, Lowered, Value } from "../../tensor/Instruction.ts"
import type { Elements } from "../Backend.ts"
import type { Arrays } from "../reference/Interpreter.ts"
import type { DataType, Engine, Tensor } from "./Engine.ts"
import { toDevice } from "./DeviceMemory.ts"
import { step } from "./Kernel.ts"
import { type Device, type Operand, type Step, typeOf } from "./Piece.ts"
import { type Need, needs } from "./Range.ts"
import { same, total } from "./Shape.ts"

/** The check of ids that are known only while a program runs. */
export interface Check extends Need {
  /** The place of the ids. */
  readonly ids: number
  /** One truth on the device: does one of them lie outside? */
  readonly isOutside: (ids: Tensor) => Tensor
}

/** One instruction: where its operands and results lie among the values of a run, and which it is the last to read. */
export interface Planned {
  readonly instruction: Instruction
  readonly step: Step
  readonly operands: ReadonlyArray<number>
  readonly results: ReadonlyArray<number>
  readonly freed: ReadonlyArray<number>
  readonly check?: Check
}

/** A program as an engine runs it. */
export interface Plan {
  readonly steps: ReadonlyArray<Planned>
  /** The place of each value of the program; several may share one. */
  readonly places: ReadonlyArray<number>
  /** The constants at their places; the places of a run's own tensors are empty. */
  readonly constants: ReadonlyArray<Tensor | undefined>
  /** The places that a step reads or that hold a result. */
  readonly read: ReadonlySet<number>
  /** What inputs must be before a run begins. */
  readonly checks: ReadonlyArray<Need>
}

/** Constants on an engine that live together. */
export const constantsOn = (engine: Engine): Device & { readonly free: () => void } => {
  const shared = new Map<string, Tensor>()
  const tensors: Array<Tensor> = []
  const upload = (elements: Elements, shape: ReadonlyArray<number>, type: DataType): Tensor => {
    const tensor = engine.upload(toDevice(elements, type), shape, type)
    tensors.push(tensor)
    return tensor
  }
  return {
    engine,
    constant: (elements, shape, type) => {
      if (typeof elements !== "number") return upload(elements, shape, type)
      const key = `${type} ${shape.join()} ${keyOf(elements)}`
      const tensor = shared.get(key) ?? upload(new Float64Array(total(shape)).fill(elements), shape, type)
      shared.set(key, tensor)
      return tensor
    },
    free: () => tensors.splice(0).forEach((tensor) => tensor.dispose())
  }
}

/** A number as a key: 0 and −0 are two. */
const keyOf = (number: number): string => Object.is(number, -0) ? "-0" : String(number)

const found = <X>(item: X | undefined, name: string | number): X => {
  if (item === undefined) throw new TypeError(`the lowered program is not closed: ${name} has no value`)
  return item
}

/** Plans a program. `frozen` holds the cells that are constants. */
export const plan = (device: Device, lowered: Lowered, frozen: Arrays): Plan => {
  const { values } = lowered
  const places = values.map((_, id) => id)
  const constants: Array<Tensor | undefined> = values.map(() => undefined)
  /** Constants that may not be on the device yet: one number everywhere, or elements. */
  const fills = new Map<number, number>()
  const arrays = new Map<number, Elements>()
  const scalars = new Map<string, number>()
  for (const { name, value } of lowered.cells) {
    const elements = frozen.get(name)
    if (elements !== undefined) arrays.set(value, elements)
  }

  const valueOf = (id: number): Value => found(values[id], id)
  const placeOf = (id: number): number => found(places[id], id)
  const isEmpty = (id: number): boolean => total(valueOf(id).shape) === 0

  /** The place of a number without axes, which broadcasts. */
  const scalar = (number: number, type: DataType): number => {
    const key = `${type} ${keyOf(number)}`
    const place = scalars.get(key) ?? constants.push(device.constant(number, [], type)) - 1
    scalars.set(key, place)
    return place
  }
  /** The place of a value, which is put on the device if it is a constant. */
  const settle = (id: number): number => {
    const place = placeOf(id)
    const elements = fills.get(place) ?? arrays.get(place)
    if (constants[place] === undefined && elements !== undefined && !isEmpty(place)) {
      const { kind, shape } = valueOf(place)
      constants[place] = device.constant(elements, shape, typeOf(kind))
    }
    return place
  }

  const open = needs(lowered)
  const checks = new Map(open.filter(({ input }) => input === undefined).map((need) => [need.instruction, need]))
  const steps: Array<Planned> = []

  /** Settles an instruction whose result is known without running it. */
  const isKnown = (instruction: Instruction, output: number): boolean => {
    const { inputs, primitive } = instruction
    if (primitive._tag === "constant") {
      if (typeof primitive.elements === "number") fills.set(output, primitive.elements)
      else arrays.set(output, primitive.elements)
      return true
    }
    const alias = unchanged(instruction, valueOf, isEmpty)
    if (alias !== undefined) {
      places[output] = placeOf(alias)
      return true
    }
    const [input] = inputs
    const filled = input === undefined ? undefined : fills.get(placeOf(input))
    const number = inputs.some(isEmpty)
      ? ofNothing(instruction)
      : moves.has(primitive._tag)
        ? filled
        : undefined
    if (number !== undefined) fills.set(output, number)
    return number !== undefined
  }

  lowered.instructions.forEach((instruction, index) => {
    const { inputs, outputs, primitive } = instruction
    const need = checks.get(index)
    const [output] = outputs
    if (output === undefined) return
    if (need === undefined && (outputs.every(isEmpty) || isKnown(instruction, output))) return
    const kept = primitive._tag === "concat" ? inputs.filter((id) => !isEmpty(id)) : inputs
    const others = kept.map((id) => fills.has(placeOf(id)) ? undefined : valueOf(id))
    const operands = kept.map((id, i): readonly [place: number, operand: Operand] => {
      const { kind, shape } = valueOf(id)
      const fill = fills.get(placeOf(id))
      if (fill === undefined) return [settle(id), { kind, shape }]
      return takesNumber(primitive, i, others, valueOf(output))
        ? [scalar(fill, typeOf(kind)), { kind, shape: [], fill }]
        : [settle(id), { kind, shape, fill }]
    })
    // where there is nothing to gather from or to, only the ids are looked at
    const isChecked = need !== undefined && (inputs.some(isEmpty) || outputs.every(isEmpty))
    steps.push({
      instruction,
      step: isChecked
        ? () => []
        : step(device, primitive, operands.map(([, operand]) => operand), outputs.map(valueOf)),
      operands: isChecked ? [found(operands[1], "ids")[0]] : operands.map(([place]) => place),
      results: isChecked ? [] : outputs,
      freed: [],
      ...(need === undefined ? {} : { check: checkOf(device, need, found(operands[1], "ids")[0]) })
    })
  })
  const kept = [...lowered.outputs, ...lowered.writes, ...lowered.watched].map(({ value }) => settle(value))
  return {
    steps: withFreed(steps, new Set([...kept, ...lowered.cells.map(({ value }) => value)]), constants),
    places,
    constants,
    read: new Set([...steps.flatMap(({ operands }) => operands), ...kept]),
    checks: open.filter(({ input }) => input !== undefined)
  }
}

/** Says of each step which places it is the last to read; what is kept, or a constant, is not freed. */
const withFreed = (
  steps: ReadonlyArray<Planned>, kept: ReadonlySet<number>, constants: ReadonlyArray<unknown>
): ReadonlyArray<Planned> => {
  const last = new Map<number, number>()
  steps.forEach(({ operands, results }, index) => [...results, ...operands].forEach((place) => last.set(place, index)))
  const freed = steps.map((): Array<number> => [])
  for (const [place, index] of last) {
    if (!kept.has(place) && constants[place] === undefined) freed[index]?.push(place)
  }
  return steps.map((planned, index) => ({ ...planned, freed: freed[index] ?? [] }))
}

const checkOf = ({ constant, engine }: Device, need: Need, ids: number): Check => {
  const [zero, size] = [constant(0, [], "int32"), constant(need.size, [], "int32")]
  return {
    ...need,
    ids,
    isOutside: (x) => engine.tidy(() => {
      const under = engine.run("Less", { a: x, b: zero })
      const over = engine.run("GreaterEqual", { a: x, b: size })
      const either = engine.run("Reshape", { x: engine.run("LogicalOr", { a: under, b: over }) }, {
        shape: [total(x.shape)]
      })
      return engine.run("Any", { x: either }, { axis: [0], keepDims: false })
    })
  }
}

/** Primitives of one number everywhere that are that number everywhere. */
const moves: ReadonlySet<string> = new Set(["reshape", "expand", "transpose", "slice"])

/** The value that an instruction gives back as it is. */
const unchanged = (
  { inputs, outputs, primitive }: Instruction, valueOf: (id: number) => Value, isEmpty: (id: number) => boolean
): number | undefined => {
  const [first] = inputs
  const [output] = outputs
  if (first === undefined || output === undefined) return undefined
  const { shape } = valueOf(first)
  switch (primitive._tag) {
    case "barrier":
      return first
    case "reshape":
    case "expand":
      return same(shape, valueOf(output).shape) ? first : undefined
    case "slice":
      return primitive.start === 0 && primitive.end === shape[primitive.axis] ? first : undefined
    case "pad":
      return primitive.before === 0 && primitive.after === 0 ? first : undefined
    case "transpose":
      return primitive.permutation.every((axis, i) => axis === i) ? first : undefined
    case "concat": {
      const some = inputs.filter((id) => !isEmpty(id))
      return some.length === 1 ? some[0] : undefined
    }
    case "scatter":
      return inputs.slice(1).some(isEmpty) ? first : undefined
    default:
      return undefined
  }
}

/** What an instruction over nothing gives everywhere. */
const ofNothing = ({ primitive }: Instruction): number | undefined => {
  switch (primitive._tag) {
    case "reduce":
      return primitive.function === "sum" ? 0 : -Infinity
    case "matmul":
    case "pad":
      return 0
    default:
      return undefined
  }
}

/** May this operand, one number everywhere, come without axes? `others` are the operands that are no such number. */
const takesNumber = (
  primitive: Instruction["primitive"], operand: number, others: ReadonlyArray<Value | undefined>, result: Value
): boolean => {
  switch (primitive._tag) {
    case "scatter":
      return primitive.mode === "add" && operand === 0
    case "select":
      return operand > 0
    case "binary":
    case "compare":
      return others.some((other) => other !== undefined && same(other.shape, result.shape))
    default:
      return false
  }
}

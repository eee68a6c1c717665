/**
 * Attention over a cache, as one operator that writes the cache where it lies and turns heads by tables.
 *
 *     K[p], V[p] ← key, value,   then softmax(q · K / √D) · V   over the sources s ≤ p
 *
 * p the place of a token · K, V the cache of one block of the model · q a query · D the size of a head
 *
 * From     com.microsoft 1 of ONNX Runtime (GroupQueryAttention).
 * Checked  test/backend/onnx/Kernel.test.ts, test/backend/onnx/Decoder.test.ts.
 *
 * @module
 */
import type { Instruction, Primitive } from "../../tensor/Instruction.ts"
import { count, type Elements, type Sizes } from "../../tensor/Node.ts"
import type { Kernel } from "./Kernel.ts"
import { elementCount } from "./ModelProto.ts"
import { bytesOf, elementType, microsoft, type Writer } from "./Writer.ts"

const joinedLast = (shape: ReadonlyArray<number>): ReadonlyArray<number> =>
  [...shape.slice(0, -2), elementCount(shape.slice(-2))]

/** The caches, operands 3 and 4 and outputs 1 and 2, with heads in one piece. */
const keptShape = (isKept: (index: number) => boolean) => (shape: ReadonlyArray<number>, index: number) =>
  isKept(index) ? joinedLast(shape) : shape

/**
 * One position of each sequence, or a block of one sequence: the operator takes no blocks of several. It writes keys
 * and values behind the `starts` tokens of the cache, those of padding too, and no row attends to what lies behind it.
 * A block as long as the cache is left to the decomposition, for the operator takes it for a first prompt, wherever it
 * starts. Where the old cache is a cell that nothing else reads, and the new one what it is replaced by, both are one
 * buffer; else what lies behind the block is taken from the old one.
 *
 * Only for one position are heads turned in the operator, by angles in proportion to their places: it wants a table of
 * those of all places, which the engine then computes once.
 */
export const attendKept: Kernel = {
  applies: ([query, , , kept]) => {
    const sizes: Sizes = query?.sizes ?? {}
    const { batch = 0, part = 0, plane = 0, position = 0 } = sizes
    return (batch === 1 || position === 1) && position < (kept?.sizes["source"] ?? 0) && part * plane % 8 === 0 &&
      count(sizes) > 0
  },
  reads: keptShape((operand) => operand === 3 || operand === 4),
  writes: keptShape((output) => output > 0),
  write: (writer, { inputs, outputs }) => {
    const { fresh, give, literal, longs, lying, name, node, once, one, reshape, target, uses, value, wholeOf } = writer
    const [query = -1, key = -1, valueAtHand = -1, keptKey = -1, keptValue = -1, starts = -1] = inputs
    const [mixed = -1, newKey = -1, newValue = -1] = outputs
    const [batch = 1, position = 1, kvHead = 1, group = 1] = value(query).shape
    const cache = joinedLast(value(keptKey).shape)
    const [, , source = 1, headSize = 1] = cache
    const flat = (id: number, heads: number): string => reshape(lying(id), [batch, position, heads * headSize])
    const ids = (name: string, shape: ReadonlyArray<number>, elements: ReadonlyArray<number>): string =>
      literal(`ids ${name}`, "i32", shape, () => bytesOf(elements, "id", "f32"))
    const caches = ([[keptKey, newKey], [keptValue, newValue]] as const).map(([kept, renewed]) => {
      const old = reshape(lying(kept), cache)
      const place = target(renewed, cache)
      const isReplaced = old.replace("cell:", "write:") === place.name // a cell and its new value, as Emit names them
      const inPlace = isReplaced && uses(kept) === 1
      return { old, place, inPlace, written: inPlace ? place.name : fresh() }
    })
    const mayTurn = position === 1 && headSize % 16 === 0 // as the operator wants it
    const turned = mayTurn ? turnedAlike(writer, query, key, starts) : undefined
    const heads = { num_heads: { int: kvHead * group }, kv_num_heads: { int: kvHead } }
    const whole = turned === undefined ? undefined : wholeOf([turned.query, turned.key, valueAtHand])
    const together = kvHead * (group + 2) * headSize
    const operands = whole?.shape.at(-1) === together // a row for each sequence, then
      ? [reshape(whole, [batch, 1, together]), "", ""]
      : [flat(turned?.query ?? query, kvHead * group), flat(turned?.key ?? key, kvHead), flat(valueAtHand, kvHead)]
    const tables = turned === undefined ? [] : [
      ...tablesOf(writer, turned.frequencies, source),
      once(`places ${name(starts)}`, () => one("Cast", [reshape(lying(starts), [batch, 1])], { to: { int: 7 } }))
    ]
    const last = position === 1 ? name(starts) : once(`${name(starts)} and ${position}`, () =>
      one("Add", [name(starts), ids(`${position - 1}`, [1], [position - 1])]))
    const result = fresh()
    node("GroupQueryAttention", [
      ...operands, ...caches.map(({ old }) => old), last, ids(`${source}`, [1], [source]), ...tables
    ], [result, ...caches.map(({ written }) => written)],
    turned === undefined ? heads : { ...heads, do_rotary: { int: 1 }, rotary_interleaved: { int: 0 } }, microsoft)
    give(mixed, { name: result, shape: [batch, position, kvHead * group * headSize] })
    for (const { inPlace, old, place, written } of caches) {
      if (inPlace) continue
      const places = ids(`below ${source}`, [1, 1, source, 1], Array.from({ length: source }, (_, i) => i))
      const isFilled = one("LessOrEqual", [places, reshape({ name: last, shape: [batch] }, [batch, 1, 1, 1])])
      node("Reshape", [one("Where", [isFilled, written, old]), longs(place.shape)], [place.name])
    }
  }
}

/** What query and key were before both were turned by the same angles, each its frequency times the place `starts`. */
const turnedAlike = (writer: Writer, query: number, key: number, starts: number) => {
  const { producer, value } = writer
  const [turnsQuery, turnsKey] = [producer(query), producer(key)]
  const isTurn = (made: Instruction | undefined): made is Instruction =>
    made?.primitive._tag === "composite" && made.primitive.composite.name === "rotate"
  if (!isTurn(turnsQuery) || !isTurn(turnsKey)) return undefined
  const [before = -1, cos = -1, sin = -1] = turnsQuery.inputs
  const [keyBefore = -1, ...angles] = turnsKey.inputs
  const isOfEach = value(cos).shape.length === 3 && value(cos).shape[0] === value(query).shape[0]
  const frequencies = frequenciesOf(writer, "cos", cos, starts)
  const isAlike = angles[0] === cos && angles[1] === sin && frequencies === frequenciesOf(writer, "sin", sin, starts)
  return isOfEach && isAlike && frequencies !== undefined ? { query: before, key: keyBefore, frequencies } : undefined
}

/** The constant φ of an angle's cosine or sine, cos(places · φ), where the places are `starts`. */
const frequenciesOf = (
  { producer, value }: Writer, turn: "cos" | "sin", id: number, starts: number
): number | undefined => {
  const origin = (id: number): number => {
    const made = producer(id)
    const isMoved = made?.primitive._tag === "reshape" || made?.primitive._tag === "transpose"
    return isMoved ? origin(made.inputs[0] ?? -1) : id
  }
  const operands = (id: number | undefined, isWanted: (primitive: Primitive) => boolean): ReadonlyArray<number> => {
    const made = producer(origin(id ?? -1))
    return made !== undefined && isWanted(made.primitive) ? made.inputs : []
  }
  const [angle] = operands(id, (made) => made._tag === "unary" && made.function === turn)
  const [real, frequencies = -1] = operands(angle, (made) => made._tag === "binary" && made.function === "multiply")
  const [places] = operands(real, (made) => made._tag === "convert" && made.to === "real")
  const [first = -1, offset = -1] = operands(places, (made) => made._tag === "binary" && made.function === "add")
  const [none, constant] = [producer(origin(offset))?.primitive, origin(frequencies)]
  const isStart = origin(first) === origin(starts) && none?._tag === "constant" && isZero(none.elements)
  return isStart && producer(constant)?.primitive._tag === "constant" && value(constant).shape.length === 1
    ? constant : undefined
}

const isZero = (elements: Elements | number): boolean =>
  typeof elements === "number" ? elements === 0 : elements.every((element) => element === 0)

/** Cosines and sines of all places below `source`, [source, plane]: of constants, which the engine computes once. */
const tablesOf = (writer: Writer, frequencies: number, source: number): ReadonlyArray<string> => {
  const { lying, literal, once, one, precision, reshape, value } = writer
  const places = literal(`places below ${source}`, elementType("real", precision), [source, 1], () =>
    bytesOf(Array.from({ length: source }, (_, place) => place), "real", precision))
  const row = reshape(lying(frequencies), [1, ...value(frequencies).shape])
  const angles = once(`angles of ${row} below ${source}`, () => one("Mul", [places, row]))
  return ["Cos", "Sin"].map((op) => once(`${op} of ${angles}`, () => one(op, [angles])))
}

/**
 * Products with frozen weights as operators of Cria's own.
 *
 * @module
 */
import { panelCount, panelProduct, panelWidth, packPanels } from "../machine/PanelProduct.ts"
import { machineDomain } from "./MachineOperator.ts"
import { elementCount } from "./ModelProto.ts"
import type { Lying, Pack, Writer } from "./Writer.ts"

interface Panels {
  readonly name: string
  readonly summed: number
  readonly columns: number
}

/** Packs each constant once for all programs that hold it. */
export const packOnce = (allocate: (length: number) => Float32Array): Pack => {
  const known = new WeakMap<object, Map<string, Uint8Array>>()
  return (bytes, sizes, isTransposed) => {
    const key = JSON.stringify([bytes.byteOffset, sizes.columns, sizes.summed, isTransposed])
    const all = known.get(bytes.buffer) ?? new Map<string, Uint8Array>()
    known.set(bytes.buffer, all)
    const found = all.get(key)
    if (found !== undefined) return found
    const memory = allocate(panelCount(sizes.columns) * sizes.summed * panelWidth)
    packPanels(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4), sizes, isTransposed, memory)
    const packed = new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength)
    all.set(key, packed)
    return packed
  }
}

/** A frozen matrix in panels. */
export const panelsOf = (writer: Writer, id: number, isTransposed: boolean): Panels | undefined => {
  const { initializers, lying, machine, once, precision, value } = writer
  const { name } = lying(id)
  const bytes = machine?.frozen(name)
  const { shape } = value(id)
  if (machine === undefined || bytes === undefined || precision !== "f32" || shape.length !== 2) return undefined
  const [first = 0, second = 0] = shape
  const [summed, columns] = isTransposed ? [second, first] : [first, second]
  const panels = once(`panels of ${name} ${isTransposed}`, () => {
    const packed = machine.pack(bytes, { columns, summed }, isTransposed)
    const panelName = `${isTransposed ? "rows" : "columns"} of ${name}`
    initializers.push({ name: panelName, type: "f32", sizes: [panelCount(columns), summed, panelWidth], bytes: packed })
    return panelName
  })
  return { name: panels, summed, columns }
}

/** Writes a product with panels. */
export const panelProductNode = (
  { machine, node, operators }: Writer, x: Lying, { columns, name, summed }: Panels, result: string
): void => {
  const outer = x.shape.slice(0, -1)
  const rows = elementCount(outer)
  const op = `Product_${outer.join("x")}x${summed}x${columns}`
  const panels = panelCount(columns)
  const panelsOfPart = Math.ceil(panels / Math.min(panels, 4 * (machine?.threads ?? 1)))
  operators.set(op, {
    name: op, inputs: ["f32", "f32"], outputs: [{ type: "f32", sizes: [...outer, columns] }],
    work: panelProduct({ rows, summed, columns }, panelsOfPart), parts: Math.ceil(panels / panelsOfPart)
  })
  node(op, [x.name, name], [result], undefined, machineDomain)
}

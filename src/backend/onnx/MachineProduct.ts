/**
 * Products of few rows with frozen weights, as operators of Cria's own: the weights lie in panels.
 *
 * The engine's product of few rows waits for its weights and then multiplies; this one has them fetched meanwhile. Of
 * more rows the engine's is left: prompts run at nine tenths of the processor's rate and more.
 *
 * From     Cria's own.
 * Checked  test/backend/onnx/MachineProduct.test.ts.
 *
 * @module
 */
import { packPanels, panelCount, panelProduct, panelWidth } from "../machine/PanelProduct.ts"
import { machineDomain } from "./MachineOperator.ts"
import { elementCount } from "./ModelProto.ts"
import type { Lying, Pack, Writer } from "./Writer.ts"

/** Weights in panels, by their name in the graph. */
interface Panels {
  readonly name: string
  readonly summed: number
  readonly columns: number
}

/**
 * Packs a constant once for all programs that hold it, as long as its memory lives: constants change no more, and what
 * is no cell of a sealed allocation is a copy in memory of its own.
 */
export const packOnce = (allocate: (length: number) => Float32Array): Pack => {
  const known = new WeakMap<ArrayBufferLike, Map<string, Uint8Array>>()
  return ({ buffer, byteLength, byteOffset }, sizes, isTransposed) => {
    const { columns, summed } = sizes
    const key = [byteOffset, summed, columns, isTransposed].join()
    const packed = known.get(buffer) ?? new Map<string, Uint8Array>()
    known.set(buffer, packed)
    const found = packed.get(key)
    if (found !== undefined) return found
    const panels = allocate(panelCount(columns) * summed * panelWidth)
    packPanels(new Float32Array(buffer, byteOffset, byteLength / 4), sizes, isTransposed, panels)
    const bytes = new Uint8Array(panels.buffer, panels.byteOffset, panels.byteLength)
    packed.set(key, bytes)
    return bytes
  }
}

/** Weights of so many bytes are left to the engine: distances in the code have 32 bits. */
const largestWeight = 2 ** 30

/** A matrix in panels, where it is frozen and lies as its sizes say; else `undefined`. */
export const panelsOf = (writer: Writer, id: number, isTransposed: boolean): Panels | undefined => {
  const { initializers, lying, machine, once, value } = writer
  const { name, shape: lies, type } = lying(id)
  const { shape } = value(id)
  const bytes = machine?.frozen(name)
  const isMatrix = shape.length === 2 && elementCount(lies) === elementCount(shape) && type === undefined
  if (machine === undefined || bytes === undefined || !isMatrix) return undefined
  const [first = 0, second = 0] = shape
  const [summed, columns] = isTransposed ? [second, first] : [first, second]
  if (columns < panelWidth || bytes.length >= largestWeight) return undefined
  const panels = `${isTransposed ? `rows of ${summed}` : `columns of ${columns}`} in ${name}` // one cell, many shapes
  once(panels, () => {
    const sizes = [panelCount(columns), summed, panelWidth]
    const packed = machine.pack(bytes, { columns, summed }, isTransposed)
    initializers.push({ name: panels, type: "f32", sizes, bytes: packed })
    return panels
  })
  return { name: panels, summed, columns }
}

/** Parts of a product for each thread: whoever is done takes the next. */
const partsOfThread = 16

/** Writes the product of rows with panels. */
export const writePanelProduct = (
  { machine, node, operators }: Writer, x: Lying, { columns, name, summed }: Panels, result: string
): void => {
  const outer = x.shape.slice(0, -1)
  const sizes = { rows: elementCount(outer), summed, columns }
  const panels = panelCount(columns)
  const panelsOfPart = Math.ceil(panels / (partsOfThread * (machine?.threads ?? 1)))
  const operator = `PanelProduct_${[...outer, summed, columns].join("_")}`
  if (!operators.has(operator)) {
    operators.set(operator, {
      name: operator, inputs: ["f32", "f32"], outputs: [{ type: "f32", sizes: [...outer, columns] }],
      work: panelProduct(sizes, panelsOfPart), parts: Math.ceil(panels / panelsOfPart)
    })
  }
  node(operator, [x.name, name], [result], undefined, machineDomain)
}

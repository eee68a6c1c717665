/**
 * A product of a matrix with weights that lie in panels, as machine code: what is read next is fetched meanwhile.
 *
 *     y[r, n] = Σ_k x[r, k] W[k, n]
 *
 * r a row · k what is summed · n a column · a panel is 16 columns, k by k
 *
 * A step of decoding reads each weight once, from memory. Where a product waits for its weights and then multiplies,
 * the two times add up; here 2 KiB ahead of the sums are on their way, page by page, and the longer of the two is all.
 * A panel is read once, whatever the number of rows: up to 16 sums stay in registers.
 *
 * From     Cria's own; Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication (panels).
 * Checked  test/backend/machine/PanelProduct.test.ts, test/backend/onnx/MachineProduct.test.ts.
 *
 * @module
 */
import {
  add, addNumber, addVectors, assemble, at, clear, type Code, compareNumber, copy, end, jumpIfLess, jumpIfNotEqual,
  leaveVectors, load, loadVector, multiply, multiplyAddNumber, place, pop, prefetch, push, set, setMask, storeVector,
  subtract, subtractNumber
} from "./Assembler.ts"

/** Sizes of a product. */
export interface Sizes {
  readonly rows: number
  readonly summed: number
  readonly columns: number
}

/** Columns of a panel: as many numbers as a vector has. */
export const panelWidth = 16

/** How many panels so many columns take. */
export const panelCount = (columns: number): number => Math.ceil(columns / panelWidth)

const numberBytes = 4
const vectorBytes = panelWidth * numberBytes

/** How far ahead memory is asked for. */
const ahead = 2048

/** Sums that are kept in registers: each waits four steps for its last term, and there are 32 registers. */
const [fewestSums, mostRows] = [8, 16]

/**
 * W[k, n], or its transpose W[n, k], in panels: [panel, k, column of the panel], zeros behind the last column.
 */
export const packPanels = (
  weights: Float32Array, { columns, summed }: Omit<Sizes, "rows">, isTransposed: boolean, panels: Float32Array
): void => {
  const [perK, perColumn] = isTransposed ? [1, summed] : [columns, 1]
  for (let first = 0; first < columns; first += panelWidth) {
    const width = Math.min(panelWidth, columns - first)
    const start = first * summed
    for (let column = 0; column < width; column++) {
      let from = (first + column) * perColumn
      let to = start + column
      for (let k = 0; k < summed; k++) {
        panels[to] = weights[from] ?? 0
        from += perK
        to += panelWidth
      }
    }
  }
}

/**
 * A function of (the addresses of x, W and y, in memory; the number of a part): it computes the part's panels. Every
 * part but the last has so many panels.
 */
export const panelProduct = ({ columns, rows, summed }: Sizes, panelsOfPart: number): Uint8Array => {
  const panels = panelCount(columns)
  const panelBytes = summed * vectorBytes
  const lastWidth = columns - (panels - 1) * panelWidth
  const isWhole = lastWidth === panelWidth
  const [nextPanel, isShort, isFull] = [place("next panel"), place("a short part"), place("a full panel")]
  const panel: Code = [
    copy("rsi", "rax"), copy("rdi", "rdx"), // the first row of x and of y
    ...blocksOf(rows).flatMap(([height, count]) => rowBlocks(height, count, { columns, rows, summed }, !isWhole))
  ]
  return assemble([
    push("rbx"), push("rbp"),
    load("rax", at("rdi")), load("rcx", at("rdi", 8)), load("rdx", at("rdi", 16)), // x, W, y
    multiply("r8", "rsi", panelsOfPart * panelBytes), add("rcx", "r8"),
    multiply("r8", "rsi", panelsOfPart * vectorBytes), add("rdx", "r8"),
    multiply("r8", "rsi", panelsOfPart), set("r10", panels), subtract("r10", "r8"), // panels up to the last of all
    copy("rbp", "r10"), compareNumber("r10", panelsOfPart), jumpIfLess(isShort), set("rbp", panelsOfPart), isShort,
    ...isWhole ? [] : [set("rbx", 0xffff), setMask(1, "rbx")],
    nextPanel,
    ...isWhole ? [] : [
      compareNumber("r10", 1), jumpIfNotEqual(isFull), set("rbx", 2 ** lastWidth - 1), setMask(1, "rbx"), isFull
    ],
    ...panel,
    addNumber("rcx", panelBytes), addNumber("rdx", vectorBytes),
    subtractNumber("r10", 1), subtractNumber("rbp", 1), jumpIfNotEqual(nextPanel),
    pop("rbp"), pop("rbx"), leaveVectors, end
  ])
}

/** Rows in blocks of at most 16 that differ by one at most: how high, and how many of them. */
const blocksOf = (rows: number): ReadonlyArray<readonly [height: number, count: number]> => {
  const count = Math.ceil(rows / mostRows)
  const height = Math.ceil(rows / count)
  const lower = height * count - rows
  return [[height, count - lower] as const, [height - 1, lower] as const].filter(([, count]) => count > 0)
}

/** Some blocks of so many rows with one panel. */
const rowBlocks = (height: number, count: number, { columns, summed }: Sizes, isMasked: boolean): Code => {
  const nextBlock = place("next block")
  const mask = isMasked ? 1 : 0
  const sumsOfRow = Math.min(summed, Math.ceil(fewestSums / height)) // each of every so many terms, added in the end
  const sums = height * sumsOfRow
  const weights = sums // the register behind the sums
  const steps = Math.floor(summed / sumsOfRow)
  const terms = (from: number): Code => Array.from({ length: from }, (_, term) => [
    loadVector(weights + term, at("r9", term * vectorBytes)),
    prefetch(at("r9", term * vectorBytes + ahead)),
    ...Array.from({ length: height }, (_, row) =>
      multiplyAddNumber(row * sumsOfRow + term, weights + term, at("r11", (row * summed + term) * numberBytes)))
  ]).flat()
  const nextStep = place("next step")
  return [
    set("r8", count),
    nextBlock,
    copy("r9", "rcx"), copy("r11", "rsi"), set("rbx", steps),
    ...Array.from({ length: sums }, (_, sum) => clear(sum)),
    nextStep,
    ...terms(sumsOfRow),
    addNumber("r9", sumsOfRow * vectorBytes), addNumber("r11", sumsOfRow * numberBytes),
    subtractNumber("rbx", 1), jumpIfNotEqual(nextStep),
    ...terms(summed - steps * sumsOfRow),
    ...Array.from({ length: height }, (_, row) => [
      ...Array.from({ length: sumsOfRow - 1 }, (_, term) =>
        addVectors(row * sumsOfRow, row * sumsOfRow, row * sumsOfRow + term + 1)),
      storeVector(row * sumsOfRow, at("rdi", row * columns * numberBytes), mask)
    ]).flat(),
    addNumber("rsi", height * summed * numberBytes), addNumber("rdi", height * columns * numberBytes),
    subtractNumber("r8", 1), jumpIfNotEqual(nextBlock)
  ]
}

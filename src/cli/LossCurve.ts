/**
 * The loss of a run, drawn with characters: the training loss as a line of dots, the validation loss as circles.
 *
 *     row of a value = (top − value) / (top − bottom) · (height − 1);   column of a step = step / last · (width − 1)
 *
 * A column shows the mean of the training losses that fall into it.
 *
 * Checked  test/cli/LossCurve.test.ts (every point is drawn in its place, one picture as text).
 *
 * @module
 */
import type { Entry } from "../store/Journal.ts"

/** A point of a curve. */
export interface Point {
  readonly step: number
  readonly value: number
}

/** The points of one metric in the entries of a journal. */
export const pointsOf = (entries: ReadonlyArray<Entry>, name: string): ReadonlyArray<Point> =>
  entries.flatMap(({ step, values }) => {
    const value = values[name]
    return value === undefined ? [] : [{ step, value }]
  })

/** The picture, without a final line break; empty without points. */
export const draw = (
  curves: { readonly training: ReadonlyArray<Point>; readonly validation: ReadonlyArray<Point> },
  size: { readonly columns: number; readonly rows: number }
): string => {
  const last = [...curves.training, ...curves.validation].reduce((most, { step }) => Math.max(most, step), 0)
  if (last === 0) return ""
  const margin = 7
  const width = Math.max(10, size.columns - margin)
  const columnOf = (step: number): number => Math.round(step / last * (width - 1))
  const means = Array.from({ length: width }, (_, column) => {
    const values = curves.training.filter(({ step }) => columnOf(step) === column).map(({ value }) => value)
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length
    return values.length === 0 ? [] : [{ column, value: mean, mark: "·" }]
  }).flat()
  const circles = curves.validation.map(({ step, value }) => ({ column: columnOf(step), value, mark: "o" }))
  const marks = [...means, ...circles]
  const values = marks.map(({ value }) => value)
  const [bottom, top] = [Math.min(...values), Math.max(...values)]
  const rowOf = (value: number): number =>
    top === bottom ? 0 : Math.round((top - value) / (top - bottom) * (size.rows - 1))
  const cells = Array.from({ length: size.rows }, () => Array.from({ length: width }, () => " "))
  for (const { column, mark, value } of marks) cells[rowOf(value)]?.splice(column, 1, mark)
  const label = (row: number): string =>
    row === 0 ? top.toFixed(2) : row === size.rows - 1 ? bottom.toFixed(2) : ""
  const lines = cells.map((line, row) => `${label(row).padStart(margin - 2)} │${line.join("").trimEnd()}`)
  const axis = `${" ".repeat(margin - 2)} └${"─".repeat(width)}`
  const steps = `${" ".repeat(margin)}0${`step ${last}`.padStart(width - 1)}`
  return [...lines, axis, steps, `${" ".repeat(margin)}· loss   o validation loss   (nats a token)`].join("\n")
}

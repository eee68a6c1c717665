/**
 * Programs as text that a person can read: one line a node, by place, with sizes.
 *
 *     program step
 *       input x                          real [batch: 3, embed: 4]
 *       cell w                           real [embed: 4]
 *       %1 = contract(x, w; over embed)  real [batch: 3]
 *       output loss = %1
 *
 * From     Cria's own; a model that can be printed is its own specification (Penzai).
 * Checked  test/tensor/Print.test.ts.
 *
 * @module
 */
import { topological } from "./Gradient.ts"
import type { Any, Operation } from "./Node.ts"
import { describe } from "./Node.ts"
import type { Named, Program } from "./Program.ts"

/** The text of a program. */
export const program = <I, S, O>({ cells, leaves, name, results, writes }: Program<I, S, O>): string => {
  const names = new Map<Any, string>([...leaves, ...cells].map(([path, leaf]) => [leaf, path] as const))
  const ends = [...results, ...writes].map(([, node]) => node)
  const used = new Set(topological(ends))
  const leaf = (kind: string, named: Named): ReadonlyArray<Line> =>
    named.map(([path, tensor]) =>
      ({ text: `${kind} ${path}${used.has(tensor) ? "" : " (unused)"}`, type: typeOf(tensor) }))
  const end = (text: string, named: Named): ReadonlyArray<Line> =>
    named.map(([path, node]) => ({ text: `${text} ${path} = ${names.get(node) ?? inline(node)}`, type: "" }))
  const body = lines(ends, names)
  return [`program ${name}`,
    ...columns([...leaf("input", leaves), ...leaf("cell", cells), ...body, ...end("output", results),
      ...end("replace", writes)])].join("\n")
}

/** The text of some expressions. */
export const expressions = (nodes: ReadonlyArray<Any>): string => columns(lines(nodes, new Map())).join("\n")

interface Line {
  readonly text: string
  readonly type: string
}

const typeOf = ({ kind, sizes }: Any): string => `${kind} ${describe(sizes)}`

const lines = (ends: ReadonlyArray<Any>, names: Map<Any, string>): ReadonlyArray<Line> => {
  const found: Array<Line> = []
  let place = ""
  let next = 1
  for (const node of topological(ends)) {
    const { operation } = node
    if (names.has(node) || isInline(node)) continue
    if (node.place !== place) {
      place = node.place
      found.push({ text: `-- ${place === "" ? "outside every place" : place}`, type: "" })
    }
    const operands = node.operands.map((operand) => names.get(operand) ?? inline(operand))
    if (operation._tag === "Output") {
      names.set(node, `${operands[0] ?? ""}.${operation.index}`)
      continue
    }
    const name = operation._tag === "Leaf" ? operation.name : `%${next++}`
    names.set(node, name)
    if (operation._tag !== "Leaf") found.push(
      { text: `${name} = ${call(operation, operands)}`,
        type: operation._tag === "Composite"
          ? operation.outputs.map(({ kind, sizes }) => `${kind} ${describe(sizes)}`).join(", ") : typeOf(node) })
  }
  return found
}

const isInline = (node: Any): boolean => node.operation._tag === "Fill" && Object.keys(node.sizes).length === 0

const inline = (node: Any): string => node.operation._tag === "Fill" ? String(node.operation.value) : "?"

const call = (operation: Operation, operands: ReadonlyArray<string>): string => {
  const [name, notes] = notation(operation)
  return `${name}(${[operands.join(", "), notes].filter((part) => part !== "").join("; ")})`
}

/** How an operation is written: its name and what else it is told. */
const notation = (operation: Operation): readonly [name: string, notes: string] => {
  switch (operation._tag) {
    case "Unary":
    case "Binary":
    case "Logic":
      return [operation.function, ""]
    case "Compare":
      return [operation.relation, ""]
    case "Reduce":
      return [operation.function, `over ${operation.axes.join(", ")}`]
    case "Contract":
      return ["contract", `over ${operation.over.join(", ")}`]
    case "CumulativeSum":
      return ["cumulativeSum", `along ${operation.axis}${operation.reverse ? " from its end" : ""}`]
    case "Rename":
      return ["rename", `${operation.from} to ${operation.to}`]
    case "Slice":
      return ["slice", `${operation.axis} from ${operation.start} to ${operation.end}`]
    case "Pad":
      return ["pad", `${operation.axis} by ${operation.before} and ${operation.after}`]
    case "Split":
      return ["split", `${operation.axis} into ${operation.into.join(", ")}`]
    case "Merge":
      return ["merge", `${operation.axes.join(", ")} into ${operation.into}`]
    case "Put":
      return [`put ${operation.mode}`, `along ${operation.axis}`]
    case "TopK":
      return [`topK ${operation.part}`, `along ${operation.axis} as ${operation.rank}`]
    case "Spread":
    case "Concat":
    case "Take":
    case "Positions":
      return [operation._tag.toLowerCase(), `along ${operation.axis}`]
    case "Fill":
      return ["fill", String(operation.value)]
    case "Constant":
      return ["constant", `${operation.elements.length} elements`]
    case "Label":
      return ["label", operation.name]
    case "Composite":
      return [operation.composite.name,
        Object.entries(operation.composite.attributes).map(([key, value]) => `${key} ${value}`).join(", ")]
    case "Select":
    case "Convert":
    case "StopGradient":
    case "Barrier":
    case "Leaf":
    case "Output":
      return [operation._tag.charAt(0).toLowerCase() + operation._tag.slice(1), ""]
  }
}

const columns = (all: ReadonlyArray<Line>): ReadonlyArray<string> => {
  const width = Math.min(60, Math.max(0, ...all.map(({ text, type }) => type === "" ? 0 : text.length)))
  return all.map(({ text, type }) => `  ${type === "" ? text : `${text.padEnd(width)}  ${type}`}`)
}

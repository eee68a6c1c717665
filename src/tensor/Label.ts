/**
 * Labels: the inner values of a computation that were given names, each under a name of its own.
 *
 * Values that are computed alike are one value: a region that is computed again for its gradient, a composite and the
 * decomposition that its pullback is derived from. Different values of one name, as of a part of a model that is used
 * twice, are numbered in the order in which they are computed: `x`, `x·2`, `x·3`. They are kept and not refused: who
 * looks for the tensor that is not finite must see all of them, and both uses of the part are right.
 *
 * From     Cria's own.
 * Checked  test/tensor/Label.test.ts.
 *
 * @module
 */
import { partsOf } from "./Composite.ts"
import { topological } from "./Gradient.ts"
import type { Any } from "./Node.ts"
import { describe } from "./Node.ts"

/** Labelled values by full name. */
export type Labelled = ReadonlyArray<readonly [name: string, value: Any]>

/** The labelled values that some ends depend on, under names that differ; composites are looked into. */
export const labelled = (ends: ReadonlyArray<Any>): Labelled => {
  const found = new Map<string, Map<number, Any>>()
  visit(ends, (name, node, identity) => {
    const values = found.get(name) ?? new Map<number, Any>()
    found.set(name, values)
    if (!values.has(identity)) values.set(identity, node)
  })
  return [...found].flatMap(([name, values]) => {
    let number = 1
    return [...values.values()].map((node, i) => {
      if (i === 0) return [name, node] as const
      do number++
      while (found.has(numbered(name, number))) // the name that another label was given
      return [numbered(name, number), node] as const
    })
  })
}

const numbered = (name: string, number: number): string => `${name}·${number}`

/** Whether a composite holds a label that goes, numbered or not, by one of these full names. */
export const holdsLabel = (composite: Any, names: ReadonlySet<string>): boolean => {
  if (names.size === 0) return false
  let holds = false
  visit([composite], (name) => {
    holds ||= [...names].some((full) => full === name || full.startsWith(`${name}·`))
  }, composite.operands)
  return holds
}

/** Calls `each` for every label; equal identities are equal computations. */
const visit = (
  ends: ReadonlyArray<Any>, each: (name: string, node: Any, identity: number) => void, given: ReadonlyArray<Any> = []
): void => {
  const numbers = new Map<Any, number>()
  const known = new Map<string, number>()
  const objects = new Map<object, number>()
  const numberOf = <K>(map: Map<K, number>, key: K): number => {
    const number = map.get(key) ?? map.size
    map.set(key, number)
    return number
  }
  const keyOf = ({ kind, operation, operands, sizes }: Any): string => [
    ...Object.values(operation).map((value) => value !== null && typeof value === "object" && !Array.isArray(value)
      ? `#${numberOf(objects, value)}`
      : Object.is(value, -0) ? "-0" : String(value)),
    kind, describe(sizes), ...operands.map((operand) => numbers.get(operand))
  ].join(" ")
  const parts = new Map<Any, ReadonlyArray<Any>>()
  const walk = (ends: ReadonlyArray<Any>, given: ReadonlyArray<Any>): void => {
    for (const node of given) if (!numbers.has(node)) numbers.set(node, numberOf(known, `given ${numbers.size}`))
    const outside = new Set(given)
    for (const node of topological(ends, (node) => outside.has(node))) {
      if (numbers.has(node)) continue
      const { operands: [first], operation } = node
      const same = operation._tag === "Label" || operation._tag === "Barrier" ? first
        : operation._tag === "Output" && first !== undefined ? parts.get(first)?.[operation.index] : undefined
      if (operation._tag === "Composite") {
        const inner = partsOf(node)
        parts.set(node, inner)
        walk(inner, node.operands)
      }
      const number = numbers.get(same ?? node) ?? numberOf(known, keyOf(node))
      numbers.set(node, number)
      if (operation._tag === "Label" && operation.name !== "") each(operation.name, node, number)
    }
  }
  walk(ends, given)
}

/**
 * Optimizers: from gradients, memory and parameters to new memory and parameters, as pairs of pure functions.
 *
 *     memory(specification) → specification        update(gradients, memory, parameters, step) → memory, parameters
 *
 * An optimizer fits every tree of parameters. Its memory is a tree whose form only it knows (`Hidden`): moments of an
 * AdamW, nothing for plain descent. The update is a tensor expression like any other; nothing runs until a backend
 * compiles it.
 *
 * From     the pairs of Optax (init and update), with memory behind a seal.
 * Checked  test/optimize/Optimizer.test.ts.
 *
 * @module
 */
import type { Hidden } from "../tensor/Hidden.ts"
import type { Scalar } from "../tensor/Node.ts"
import { isTensor } from "../tensor/Node.ts"
import type { Specifications } from "../tensor/Specification.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { mapAs, tensors } from "../tensor/Tree.ts"

/** What changes from one update to the next: inputs of the program. */
export interface Step {
  /** From a schedule. */
  readonly learningRate: Scalar
  /** The number of this update, counted from 1. */
  readonly count: Scalar
  /** The norm of all gradients together, before any clipping. */
  readonly gradientNorm: Scalar
}

/** What an update is made from; the trees have one form. */
export interface Input<P> {
  readonly gradients: P
  readonly memory: Hidden
  readonly parameters: P
  readonly step: Step
}

/** How gradients become new parameters. */
export interface Optimizer {
  /** The specification of the memory for such parameters; it begins at zero. */
  readonly memory: <S>(parameters: S) => Specifications<Hidden>
  readonly update: <P>(input: Input<P>) => { readonly parameters: P; readonly memory: Hidden }
}

/** How gradients become other gradients. */
export type GradientMap = <P>(gradients: P, step: Step) => P

/** An optimizer whose gradients first go through some maps, in the order in which they are named. */
export const chain = (...links: readonly [...ReadonlyArray<GradientMap>, Optimizer]): Optimizer => {
  const maps = links.slice(0, -1) as ReadonlyArray<GradientMap>
  const optimizer = links.at(-1) as Optimizer
  return {
    memory: optimizer.memory,
    update: (input) => optimizer.update({
      ...input, gradients: maps.reduce((gradients, map) => map(gradients, input.step), input.gradients)
    })
  }
}

/** What an update of one tensor is made from. */
export interface Leaf<Slot extends string, A extends string> {
  /** Where the parameter stands in its tree, e.g. `block.3.attention.query`. */
  readonly path: string
  readonly gradient: Tensor<A>
  readonly parameter: Tensor<A>
  readonly memory: Readonly<Record<Slot, Tensor<A>>>
}

/** What becomes of one tensor. */
export interface Updated<Slot extends string, A extends string> {
  readonly parameter: Tensor<A>
  readonly memory: Readonly<Record<Slot, Tensor<A>>>
}

/**
 * An optimizer that treats every tensor by itself and remembers, under each slot, a tensor of the parameter's sizes.
 *
 * Memory lies at `slot.path`: `first.block.3.attention.query`. Gradients or memory that lack a parameter's path are a
 * TypeError that names it.
 */
export const perTensor = <const Slot extends string>(
  slots: ReadonlyArray<Slot>,
  update: (step: Step) => <A extends string>(leaf: Leaf<Slot, A>) => Updated<Slot, A>
): Optimizer => ({
  memory: (parameters) =>
    mapAs<Specifications<Hidden>>()(bySlot(slots, () => Specification.zeros(parameters)), isSpecification, same),
  update: ({ gradients, memory, parameters, step }) => {
    const gradientAt = byPath("gradients", gradients)
    const memoryAt = byPath("memory", memory)
    const updateLeaf = update(step)
    const updated = new Map(tensors(parameters).map(([path, parameter]) => [path, updateLeaf<string>({
      path,
      parameter: parameter as Tensor<string>,
      gradient: gradientAt(path),
      memory: bySlot(slots, (slot) => memoryAt(`${slot}.${path}`))
    })]))
    const part = (slot: Slot): unknown => mapAs()(parameters, isTensor, (_, path) => updated.get(path)?.memory[slot])
    return {
      parameters: mapAs<typeof parameters>()(parameters, isTensor, (_, path) => updated.get(path)?.parameter),
      memory: mapAs<Hidden>()(bySlot(slots, part), isTensor, same)
    }
  }
})

const { isSpecification } = Specification

const same = <X>(leaf: X): X => leaf

const bySlot = <Slot extends string, X>(slots: ReadonlyArray<Slot>, f: (slot: Slot) => X): Readonly<Record<Slot, X>> =>
  Object.fromEntries(slots.map((slot) => [slot, f(slot)])) as Readonly<Record<Slot, X>>

const byPath = (name: string, tree: unknown) => {
  const found = new Map(tensors(tree))
  return (path: string): Tensor<string> => {
    const tensor = found.get(path)
    if (tensor === undefined) {
      throw new TypeError(`optimizer: no "${path}" in the ${name}; give those of the same parameters and optimizer`)
    }
    return tensor as Tensor<string>
  }
}

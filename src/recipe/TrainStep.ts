/**
 * One optimizer step as programs over shared cells: gradient (set, then add), norm, update.
 *
 *     g = Σ over micro-batches ∇ loss        (m, w) ← optimizer(g, |g|, m, w)
 *
 * g `gradients` · m `memory` of the optimizer · w `parameters`; the loss may read `frozen` cells beside them
 *
 * Between the programs stands the check that every number is finite: a step that is not never reaches a parameter, and
 * is replayed with inner values watched to name the first tensor that went wrong.
 *
 * From     Llama 2 §2.2 (AdamW, clipping at 1.0); the split into programs is Cria's own.
 * Checked  test/recipe/TrainStep.test.ts (any split into micro-batches gives the big batch's step; a NaN is named and
 *          reaches no parameter; frozen cells are read and stay).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Backend, type BackendError, type Cells, type Elements, type Given, type Results } from "../backend/Backend.ts"
import type { Optimizer } from "../optimize/Optimizer.ts"
import { globalNorm } from "../optimize/Clip.ts"
import { gradientOf } from "../tensor/Gradient.ts"
import type { Hidden } from "../tensor/Hidden.ts"
import type { Scalar, Sizes } from "../tensor/Node.ts"
import * as Program from "../tensor/Program.ts"
import type { ShapeError } from "../tensor/ShapeError.ts"
import * as Specification from "../tensor/Specification.ts"
import type { Specifications, Tensors } from "../tensor/Specification.ts"
import * as T from "../tensor/Tensor.ts"
import type { Tensor } from "../tensor/Tensor.ts"
import { entries, mapAs } from "../tensor/Tree.ts"

/**
 * Fails when the loss or a gradient of a step is not a finite number. The parameters are as they were before the step.
 */
export class NonFiniteError extends Schema.TaggedError<NonFiniteError>()("NonFiniteError", {
  /** The step, counted from 1. */
  step: Schema.Int,
  /** The micro-batch of the step, counted from 1. */
  microBatch: Schema.Int,
  /** The first tensor that is not finite: a parameter, a frozen cell, a labelled inner value, or a gradient. */
  tensor: Schema.String,
  /** The place of its first such element, and what stands there. */
  element: Schema.Int,
  value: Schema.String,
  /** Which data the micro-batch held; null where nobody described it. */
  batch: Schema.NullOr(Schema.String)
}) {
  override get message() {
    const { batch, element, microBatch, step, tensor, value } = this
    const data = batch === null ? ", whose data nobody named: give the step a `describe`" : `: ${batch}`
    return `step ${step}: every number must be finite, and ${tensor} is ${value} at element ${element}\n` +
      `  in micro-batch ${microBatch}${data}\n` +
      "  No parameter was changed by this step, the snapshots are intact. Usual causes: a learning rate too high\n" +
      "  or a warm-up too short: train on from a snapshot with a lower one. If it fails at once: damaged weights."
  }
}

/** What a step is made of. */
export interface Parts<I, S, O, F> {
  readonly name: string
  readonly inputs: I
  readonly parameters: S
  /** Cells of others that the loss reads and no step changes: the weights under a LoRA, a reference policy. */
  readonly frozen?: { readonly specification: F; readonly cells: Cells<F> }
  readonly optimizer: Optimizer
  /** A micro-batch's share of the loss of the step (the shares are summed), and what else to return. */
  readonly loss: (parameters: Tensors<S>, inputs: Tensors<I>, frozen: Tensors<F>) => {
    readonly loss: Scalar
    readonly outputs: O
  }
  /** The normal draws that parameters begin with. */
  readonly initial: (path: string, sizes: Sizes) => Elements | undefined
}

/** What one step reports. */
export interface Report<O> {
  /** The sum of the shares of the micro-batches. */
  readonly loss: number
  /** Before clipping. */
  readonly gradientNorm: number
  readonly outputs: ReadonlyArray<Results<O>>
}

/** What one step is run on. */
export interface Task<I> {
  /** Counted from 1. */
  readonly step: number
  readonly learningRate: number
  readonly microBatches: ReadonlyArray<Given<I>>
  /** Names the data of a micro-batch (counted from 0), for the report of a number that is not finite. */
  readonly describe?: (microBatch: number) => string
}

/** A step ready to run, and the cells that it changes. */
export interface TrainStep<I, S, O> {
  readonly parameters: Cells<S>
  readonly memory: Cells<Specifications<Hidden>>
  readonly run: (task: Task<I>) => Effect.Effect<Report<O>, BackendError | NonFiniteError>
}

/** Compiles the programs of a step and allocates its cells. */
export const make = Effect.fnUntraced(function*<I, S, O, F = {}>(
  { frozen, initial, inputs, loss, name, optimizer, parameters }: Parts<I, S, O, F>
): Effect.fn.Return<TrainStep<I, S, O>, BackendError | ShapeError, Backend | Scope.Scope> {
  const backend = yield* Backend
  const gradients = Specification.zeros(parameters)
  const memory = optimizer.memory(parameters)
  const scalars = {
    learningRate: Specification.real({}), count: Specification.real({}), gradientNorm: Specification.real({})
  }
  const others = frozen ?? { specification: {} as F, cells: {} as Cells<F> }
  const read = { parameters, gradients, frozen: others.specification }
  const gradient = (mode: "set" | "add") =>
    Program.makeGeneric(`${name}.gradient.${mode}`, { inputs, state: read }, (given, state) => {
      const share = loss(state.parameters, given, state.frozen)
      const found = gradientOf(share.loss, state.parameters)
      return { outputs: share, state: { gradients: mode === "set" ? found : addTrees(state.gradients, found) } }
    })
  const norm = yield* Program.makeGeneric(`${name}.norm`, { inputs: {}, state: { gradients } }, (_, state) => ({
    outputs: { norm: globalNorm(state.gradients) }
  }))
  const update = yield* Program.makeGeneric(
    `${name}.update`, { inputs: scalars, state: { parameters, gradients, memory } },
    (step, state) => ({
      outputs: {},
      state: optimizer.update({ gradients: state.gradients, memory: state.memory, parameters: state.parameters, step })
    })
  )
  const set = yield* gradient("set")
  const cells = {
    parameters: yield* backend.allocate(parameters, { initial }),
    gradients: yield* backend.allocate(gradients),
    frozen: others.cells,
    memory: yield* backend.allocate(memory)
  }
  const first = yield* Effect.flatMap(backend.compile(set), (executable) => executable.bind(cells))
  const later = yield* Effect.cached(gradient("add").pipe( // compiled when a step has a second micro-batch
    Effect.flatMap((program) => backend.compile(program)),
    Effect.flatMap((executable) => executable.bind(cells)),
    Effect.catchTag("ShapeError", Effect.die), // the same expressions as in the first program
    Effect.provide(yield* Effect.context<Scope.Scope>())
  ))
  const measure = yield* Effect.flatMap(backend.compile(norm), (executable) => executable.bind(cells))
  const change = yield* Effect.flatMap(backend.compile(update), (executable) => executable.bind(cells))

  const locate = locateNonFinite(backend, set, cells)
  const run = Effect.fnUntraced(function*(
    { describe, learningRate, microBatches, step }: Task<I>
  ): Effect.fn.Return<Report<O>, BackendError | NonFiniteError> {
    if (microBatches.length === 0) { // else the gradients of the step before would be applied again
      return yield* Effect.die(new RangeError(`${name}, step ${step}: a step needs at least one micro-batch`))
    }
    const batchOf = (part: number): string | null => describe?.(part) ?? null
    const outputs: Array<Results<O>> = []
    let total = 0
    for (const [i, given] of microBatches.entries()) {
      const share = yield* (i === 0 ? first : yield* later).run(given)
      const value = share.loss.elements[0] ?? NaN
      if (!Number.isFinite(value)) {
        return yield* (yield* locate(step, i, given, batchOf(i))) ?? new NonFiniteError({
          step, microBatch: i + 1, tensor: "the loss", element: 0, value: String(value), batch: batchOf(i)
        })
      }
      total += value
      outputs.push(share.outputs)
    }
    const gradientNorm = (yield* measure.run({})).norm.elements[0] ?? NaN
    if (!Number.isFinite(gradientNorm)) {
      for (const [i, given] of microBatches.entries()) { // each by itself, so that the one at fault is named
        const error = yield* locate(step, i, given, batchOf(i))
        if (error !== undefined) return yield* error
      }
      const last = microBatches.length - 1
      return yield* new NonFiniteError({
        step, microBatch: last + 1, tensor: "the norm of the gradients", element: 0, value: String(gradientNorm),
        batch: batchOf(last)
      })
    }
    yield* change.run({ learningRate, count: step, gradientNorm })
    return { loss: total, gradientNorm, outputs }
  })
  return { parameters: cells.parameters, memory: cells.memory, run }
})

const addTrees = <G>(left: unknown, right: G): G => {
  const others = new Map(entries(left, T.isTensor))
  return mapAs<G>()(right, T.isTensor,
    (leaf, path) => T.add(others.get(path) as Tensor<string>, leaf as Tensor<string>))
}

/** What the gradient of a micro-batch is made of. */
interface State<S, F> {
  readonly parameters: S
  readonly gradients: S
  readonly frozen: F
}

/**
 * Finds the first tensor that is not finite: among the parameters, the frozen cells, the labelled inner values, the
 * gradients of one micro-batch, whose gradient program is run once more; `undefined` where all are finite.
 */
const locateNonFinite = <I, S, O, F>(
  backend: typeof Backend.Service,
  program: Program.Program<I, State<S, F>, O>,
  cells: Cells<State<S, F>>
) =>
  Effect.fnUntraced(function*(step: number, microBatch: number, given: Given<I>, batch: string | null) {
    const fail = (tensor: string, elements: Elements) => {
      const element = elements.findIndex((value) => !Number.isFinite(value))
      return element < 0 ? undefined : new NonFiniteError({
        step, microBatch: microBatch + 1, tensor, element, value: String(elements[element]), batch
      })
    }
    const inCells = Effect.fnUntraced(function*(kind: string, tree: unknown) {
      const values = entries(yield* backend.read(tree), isValues)
      return values.map(([path, { elements }]) => fail(`${kind} ${path}`, elements)).find(
        (error) => error !== undefined)
    })
    const cell = (yield* inCells("parameter", cells.parameters)) ?? (yield* inCells("frozen", cells.frozen))
    if (cell !== undefined) return cell
    const watch = Program.labels(program)
    const watched = yield* Effect.scoped(
      Effect.gen(function*() {
        const executable = yield* backend.compile(program, { watch })
        const bound = yield* executable.bind(cells)
        return (yield* bound.watch(given)).watched
      })
    )
    for (const label of watch) {
      const error = fail(label, watched[label]?.elements ?? new Float32Array())
      if (error !== undefined) return error
    }
    return yield* inCells("gradient", cells.gradients)
  })

const isValues = (value: unknown): value is { readonly elements: Elements } =>
  typeof value === "object" && value !== null && "~values" in value

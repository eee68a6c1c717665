/**
 * The reference backend: float64, plain loops, no kernels. Every other backend is compared with it.
 *
 * From     Cria's own.
 * Checked  test/backend/Backend.test.ts; test/tensor/Primitive.test.ts.
 * Departs  it computes every new value before it writes any, so nothing is ever replaced in place.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { lower, type Program } from "../tensor/Program.ts"
import { count } from "../tensor/Node.ts"
import {
  type AnyCell, Backend, type BackendError, type Bound, type CompileOptions, type Executable, type Outcome
} from "./Backend.ts"
import {
  type AnyProgram, bindCells, bound, checkOptions, freeze, type Input, inputsOf, outcome
} from "./HostProgram.ts"
import * as HostState from "./HostState.ts"
import * as Interpreter from "./reference/Interpreter.ts"

const backend = "reference"

const host: HostState.Host = {
  backend, precisions: ["f64"], precision: "f64", memory: HostState.processMemory
}

/** Makes a reference backend. Cells of one are unknown to another. */
export const make = (): Backend["Service"] => {
  const state = HostState.make(host)
  const { allocate, copy, live, read, seal, view, write } = state
  return Backend.of({
    name: backend,
    version: "1",
    capabilities: { precisions: host.precisions, kernels: [], threads: 1, primitives: {} },
    live, allocate, read, write, copy, view, seal,
    compile: (program, options) => compile(state, program, options)
  })
}

/** The reference backend as a layer. */
export const layer: Layer.Layer<Backend> = Layer.sync(Backend, make)

const compile = Effect.fnUntraced(function*<I, S, O>(
  state: HostState.HostState, program: Program<I, S, O>, options: CompileOptions = {}
): Effect.fn.Return<Executable<I, S, O>, BackendError> {
  const { constants = new Map<string, AnyCell>(), precision = state.precision, watch = [] } = options
  yield* checkOptions(state, program, precision, watch)
  const { values: frozen } = yield* freeze(state, program, precision, constants)
  const lowered = lower(program, { hasKernel: () => false, watch })
  return {
    name: program.name,
    placement: { inPlace: [], copied: program.writes.map(([path]) => path) },
    bind: (cells) =>
      Effect.map(bindCells(state, program, precision, frozen, cells), (held): Bound<I, O> => {
        const once = (inputs: ReadonlyArray<Input>) =>
          Effect.suspend(() => {
            const present = new Map([...held].map(([path, { elements }]) => [path, elements] as const))
            const computed = Interpreter.run(lowered, toArrays(inputs), new Map([...frozen, ...present]))
            if (Interpreter.isFault(computed)) return failed(state, program, computed)
            for (const [path, elements] of computed.writes) held.get(path)?.elements.set(elements)
            return Effect.succeed(outcome(program, lowered, computed.outputs, computed.watched))
          })
        const checked = inputsOf(state, program)
        const watched = (given: unknown): Effect.Effect<Outcome<O>, BackendError> =>
          Effect.flatMap(checked(given), (inputs) =>
            state.exclusively(`run ${program.name}`, [...held.values()])(once(inputs))).pipe(
            Effect.tap(Effect.yieldNow)) // the event loop has its turn, and an interruption comes in
        return bound(watched)
      })
  }
})

const toArrays = (inputs: ReadonlyArray<Input>): Interpreter.Arrays =>
  new Map(inputs.map(({ kind, path, sizes, value }) => {
    const elements = HostState.processMemory(HostState.storageOf(kind, "f64"), count(sizes))
    HostState.place(elements, value)
    return [path, elements]
  }))

const failed = (state: HostState.HostState, program: AnyProgram, fault: Interpreter.Fault) =>
  state.fail(
    `run ${program.name}`,
    `${fault.instruction}${fault.place === "" ? "" : `, in ${fault.place}`}: ${fault.detail}`,
    fault.remedy
  )

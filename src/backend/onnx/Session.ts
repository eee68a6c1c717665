/**
 * What both ways into ONNX Runtime promise, and the part they share: sessions, bindings and runs.
 *
 * A session is a loaded model · a binding fixes the buffers of one session once, so that a run passes nothing but
 * addresses. Memory is safe by construction: a binding is checked against the model before native code sees it, a run
 * in flight holds its buffers, and closing a session waits for its runs.
 *
 * Checked  test/backend/onnx/Engine.test.ts (both implementations), test/soak/Engine.test.ts (crashes, resident
 *          memory).
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { hrtime } from "node:process"
import type * as Lock from "../Lock.ts"
import { type Buffer, describe, isRemote, type Remote } from "./Buffer.ts"
import { type EngineError, failure } from "./EngineError.ts"
import type { MachineOperator } from "./MachineOperator.ts"
import { elementCount, elements, type ElementType } from "./ModelProto.ts"

/** The buffers of a binding, by the model's names. */
export interface Buffers {
  readonly inputs: Readonly<Record<string, Buffer | Remote>>
  readonly outputs: Readonly<Record<string, Buffer | Remote>>
}

/** Memory of a device, by address. */
export interface Device {
  /** Memory that holds anything. */
  readonly allocate: (bytes: number) => Effect.Effect<number, EngineError>
  /** Gives it back, unless the session has closed and taken it with it. */
  readonly free: (address: number) => Effect.Effect<void>
}

/** A program with its buffers. Runs of one binding must not overlap; runs of different sessions may. */
export interface Run {
  /**
   * Reads the inputs and writes the outputs; once begun it is not interrupted. The event loop stays live: a binding
   * whose last run took longer than {@link patience} runs on another thread, others let it turn every few milliseconds.
   */
  readonly run: Effect.Effect<void, EngineError>
  /**
   * The same at once where that holds nothing up: the last run was short, and no others are in the way. What is left
   * to be waited for when it has ended; `undefined` where it did not begin, and `run` is to be taken.
   */
  readonly attempt: () => Effect.Effect<void, EngineError> | undefined
  /** The same at once, for tiny programs (about 2 µs); blocks the event loop and throws an `EngineError`. */
  readonly runSync: () => void
}

/**
 * Milliseconds that one run may hold up the event loop. Another thread costs a run 0.3 to 0.6 ms on two cores, a third
 * of a decoding step.
 */
export const patience = 8

/**
 * Milliseconds of runs of one binding after which the event loop has its turn. Two such stretches may lie one behind
 * the other: that in which a run on another thread was answered, and the next.
 */
const stretch = 4

/** Real time, whatever clock the program has: it decides on which thread a run goes, and nothing else. */
const milliseconds = (): number => Number(hrtime.bigint()) / 1e6

/** A loaded model. */
export interface Session {
  readonly inputs: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  /**
   * Fixes the buffers of all inputs and outputs. One buffer may be an input and an output: whether that is safe (every
   * other reader of the input must run before the writer) is for the caller to prove.
   */
  readonly bind: (buffers: Buffers) => Effect.Effect<Run, EngineError>
  /** Memory of the device that the model runs on, until the session closes; the processor has none but the host's. */
  readonly device: Device | undefined
  /** Waits for runs in flight, then frees the model; its Scope does this, and doing it twice is harmless. */
  readonly close: Effect.Effect<void>
}

/** How far a model is rewritten when it loads. */
export type Optimization = "off" | "basic" | "extended" | "all"

/** What either engine offers; `Engine.ts` makes it a service. */
export interface Interface {
  /** `koffi`: the C library called directly. `node`: the JavaScript API of onnxruntime-node. */
  readonly name: "koffi" | "node"
  /** Who computes what it can; the processor does the rest: `cpu`, `webgpu`, `cuda`. */
  readonly provider: string
  readonly version: string
  /** Threads that compute; results have the same bits from run to run only while this number is the same. */
  readonly threads: number
  /** Where a program could run, as this build of the library was made: `cpu`, `webgpu`, … */
  readonly providers: ReadonlyArray<string>
  /**
   * A file that exists, of which a graph may say that it holds weights which a session is handed (see `HandedWeights`).
   * Absent where weights must stand in the model.
   */
  readonly weightsFile?: string
  /** Whether operators may be machine code of Cria's own: not on every processor, and not on a device. */
  readonly runsMachineCode: boolean
  /** A zeroed buffer. */
  readonly allocate: <T extends ElementType>(
    type: T, sizes: ReadonlyArray<number>
  ) => Effect.Effect<Buffer<T>, EngineError>
  /** Loads a model (see `ModelProto.encodeModel`); `all` unless told otherwise. */
  readonly createSession: (
    model: Uint8Array, options?: {
      readonly optimization?: Optimization
      /** Weights by name, read where they lie: they must not change while the session is open. */
      readonly weights?: ReadonlyMap<string, Buffer>
      /**
       * Sessions with the same one keep what the engine packs of their weights once, until the last has closed. Seen to
       * be safe while others run on x64 only.
       */
      readonly sharing?: object
      /** Operators of our own that the model has, where `runsMachineCode`. */
      readonly operators?: ReadonlyArray<MachineOperator>
      /** Names of nodes that a device is to leave to the processor. */
      readonly onHost?: ReadonlySet<string>
    }
  ) => Effect.Effect<Session, EngineError, Scope.Scope>
}

/** What a model declares of one input or output; a negative size is one it leaves open. */
export interface Declared {
  readonly name: string
  readonly type: ElementType | undefined
  readonly sizes: ReadonlyArray<number>
}

/** What an implementation supplies; a failure is native text, and buffers come in the model's order. */
export interface Native {
  readonly inputs: ReadonlyArray<Declared>
  readonly outputs: ReadonlyArray<Declared>
  /** How many runs may be in native code at once. */
  readonly permits: Lock.Lock
  /** Why this buffer cannot be passed, if it cannot. */
  readonly refuses: (buffer: Buffer | Remote) => string | undefined
  readonly bind: (inputs: ReadonlyArray<Buffer | Remote>, outputs: ReadonlyArray<Buffer | Remote>) => NativeRun
  readonly device: Device | undefined
  readonly release: () => void
}

/** One native binding. */
export interface NativeRun {
  readonly now: () => string | undefined
  readonly start: (done: (failed: string | undefined) => void) => void
}

/** Every way in which the buffers differ from the declared inputs (or outputs), one line each. */
const mismatches = (
  side: string, declared: ReadonlyArray<Declared>, given: Readonly<Record<string, Buffer | Remote>>, native: Native
): Array<string> => {
  const lines = declared.flatMap(({ name, sizes, type }) => {
    const buffer = given[name]
    const wanted = `${side} ${name}: the model has ${describe(type, sizes)}`
    if (buffer === undefined) return [`${wanted}, no buffer was given`]
    const fits = buffer.type === type && buffer.sizes.length === sizes.length
      && sizes.every((size, axis) => size < 0 || size === buffer.sizes[axis])
    if (!fits) return [`${wanted}, the buffer ${describe(buffer.type, buffer.sizes)}`]
    if (!isRemote(buffer) && buffer.bytes.length !== elementCount(buffer.sizes) * elements[buffer.type].bytes) {
      return [`${wanted}, the buffer has ${buffer.bytes.length} bytes`]
    }
    const refusal = native.refuses(buffer)
    return refusal === undefined ? [] : [`${wanted}, the buffer ${refusal}`]
  })
  const names = new Set(declared.map(({ name }) => name))
  const unknown = Object.keys(given).filter((name) => !names.has(name))
  return [...lines, ...unknown.map((name) => `${side} ${name}: the model has no such ${side}`)]
}

/** A session over an implementation, closed with the Scope. */
export const make = (acquire: Effect.Effect<Native, EngineError>): Effect.Effect<Session, EngineError, Scope.Scope> =>
  Effect.acquireRelease(Effect.map(acquire, fromNative), (session) => session.close)

const fromNative = (native: Native): Session => {
  // also what keeps memory alive until native code is done with it
  const inFlight = new Set<ReadonlyArray<Buffer | Remote>>()
  let closed = false
  let whenIdle = () => {}
  const close = Effect.callback<void>((resume) => {
    if (closed) return resume(Effect.void)
    closed = true
    whenIdle = () => {
      native.release()
      resume(Effect.void)
    }
    if (inFlight.size === 0) whenIdle()
  })
  const refusal = (operation: string, held: ReadonlyArray<Buffer | Remote>): EngineError | undefined =>
    closed
      ? failure("Closed", operation)
      : inFlight.has(held)
        ? failure("RunFailed", operation, "this binding is running: wait for one run before the next")
        : undefined
  const makeRun = (bound: NativeRun, held: ReadonlyArray<Buffer | Remote>): Run => {
    let took = Infinity // the last run, in milliseconds
    let blocked = 0 // since the event loop had its turn
    const ended = (failed: string | undefined): Effect.Effect<void, EngineError> =>
      failed === undefined ? Effect.void : Effect.fail(failure("RunFailed", "run", failed))
    const elsewhere = Effect.callback<void, EngineError>((resume) => {
      const began = milliseconds()
      inFlight.add(held)
      bound.start((failed) => {
        took = milliseconds() - began
        inFlight.delete(held)
        if (closed && inFlight.size === 0) whenIdle() // before `resume`, which may itself go on to close
        resume(ended(failed))
      })
    })
    const here = (): Effect.Effect<void, EngineError> => {
      const began = milliseconds()
      const failed = bound.now()
      took = milliseconds() - began
      blocked += took
      if (blocked < stretch) return ended(failed)
      blocked = 0
      return Effect.andThen(Effect.yieldNow, ended(failed))
    }
    const permitted = () => {
      const refused = refusal("run", held)
      return refused !== undefined ? Effect.fail(refused) : took > patience ? elsewhere : here()
    }
    return {
      run: native.permits.hold(Effect.uninterruptible(Effect.suspend(permitted))),
      attempt: () => took > patience || !native.permits.isFree() ? undefined : permitted(),
      runSync: () => {
        const refused = refusal("runSync", held)
        if (refused !== undefined) throw refused
        const failed = bound.now()
        if (failed !== undefined) throw failure("RunFailed", "runSync", failed)
      }
    }
  }
  const bind = (buffers: Buffers): Effect.Effect<Run, EngineError> =>
    Effect.suspend(() => {
      if (closed) return Effect.fail(failure("Closed", "bind"))
      const wrong = [
        ...mismatches("input", native.inputs, buffers.inputs, native),
        ...mismatches("output", native.outputs, buffers.outputs, native)
      ]
      if (wrong.length > 0) return Effect.fail(failure("BadBuffer", "bind", ...wrong))
      const inputs = native.inputs.flatMap(({ name }) => buffers.inputs[name] ?? [])
      const outputs = native.outputs.flatMap(({ name }) => buffers.outputs[name] ?? [])
      return Effect.try({
        try: () => makeRun(native.bind(inputs, outputs), [...inputs, ...outputs]),
        catch: (cause) => failure("BadBuffer", "bind", cause)
      })
    })
  return {
    inputs: native.inputs.map(({ name }) => name),
    outputs: native.outputs.map(({ name }) => name),
    bind,
    device: native.device,
    close
  }
}

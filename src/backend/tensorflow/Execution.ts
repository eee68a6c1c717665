/**
 * Runs a plan: inputs to the device, step after step, results back, cells exchanged.
 *
 * Whenever a run has held the event loop for ten milliseconds it yields between two steps; one kernel is never cut.
 * Whatever happens, nothing that the run made is left on the device.
 *
 * From     Cria's own.
 * Checked  test/backend/tensorflow/TensorFlow.test.ts, test/backend/tensorflow/Lifetime.test.ts.
 * Departs  cells change when a run has come to its end and its results were read: a run that fails changes nothing, and
 *          the old and the new value of a cell lie on the device together.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Instruction, Lowered, Port } from "../../tensor/Instruction.ts"
import type { Elements } from "../Backend.ts"
import { type Arrays, type Fault, idRemedy } from "../reference/Interpreter.ts"
import { type DeviceMemory, fromDevice, type Place, toDevice } from "./DeviceMemory.ts"
import type { Engine, Tensor } from "./Engine.ts"
import { typeOf } from "./Piece.ts"
import type { Check, Plan } from "./Plan.ts"
import { outside } from "./Range.ts"
import { total } from "./Shape.ts"

/** What a run hands back. */
export interface Computed {
  readonly outputs: Arrays
  readonly watched: Arrays
}

/** What a run is given. */
export interface Supplied {
  readonly inputs: ReadonlyMap<string, Elements | number>
  readonly cells: ReadonlyMap<string, Place>
}

/** How long a run holds the event loop, in milliseconds, unless one kernel takes longer. */
const breath = 10

const fault = ({ place, primitive }: Instruction, detail: string, remedy: string): Fault => ({
  instruction: primitive._tag, place, detail, remedy
})

const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

const remedy = "An engine refuses a kernel where the device has no memory left (use smaller batches, end the Scopes of"
  + " cells that are no longer needed), or where Cria gave it what it cannot take: then please report the program, as"
  + " `Print` shows it, with this message."

const isOutside = (instruction: Instruction, detail: string): Fault => fault(instruction, detail, idRemedy)

/** Runs a program once. The caller sees to it that nothing else touches the cells, and that nothing interrupts. */
export const run = (
  engine: Engine, memory: DeviceMemory, lowered: Lowered, plan: Plan, supplied: Supplied
): Effect.Effect<Computed, Fault> =>
  Effect.suspend(() => {
    const values: Array<Tensor | undefined> = [...plan.constants]
    const lent = new Set<number>()
    const flags: Array<readonly [Instruction, Check, Tensor]> = []

    const checkInputs = (): Fault | undefined => {
      for (const { axis, input, instruction, size } of plan.checks) {
        const ids = supplied.inputs.get(input ?? "")
        const found = lowered.instructions[instruction]
        const detail = ids === undefined ? undefined : outside(ids, axis, size)
        if (detail !== undefined && found !== undefined) return isOutside(found, detail)
      }
      return undefined
    }

    const load = (): void => {
      for (const { name, value } of lowered.inputs) {
        const given = supplied.inputs.get(name)
        const { kind, shape } = lowered.values[value] ?? { kind: "real", shape: [] }
        if (!plan.read.has(value) || given === undefined || total(shape) === 0) continue
        const type = typeOf(kind)
        const elements = typeof given === "number" ? new Float64Array(total(shape)).fill(given) : given
        values[value] = engine.upload(toDevice(elements, type), shape, type)
      }
      for (const { name, value } of lowered.cells) {
        const place = supplied.cells.get(name)
        const { shape } = lowered.values[value] ?? { shape: [] }
        if (!plan.read.has(value) || place === undefined || total(shape) === 0) continue
        const { isOwned, tensor } = memory.borrow(place, shape)
        values[value] = tensor
        if (!isOwned) lent.add(value)
      }
    }

    /** Runs steps until the time is over; the next step, or why there is none. */
    const burst = (first: number, now: () => number): number | Fault => {
      const end = now() + breath
      let index = first
      engine.activate()
      // engines throw what they refuse: which step it was is known only here
      try {
        for (; index < plan.steps.length && (index === first || now() < end); index++) {
          const planned = plan.steps[index]
          if (planned === undefined) break
          const { check, freed, instruction, operands, results, step } = planned
          const ids = check === undefined ? undefined : values[check.ids]
          if (check !== undefined && ids !== undefined) {
            const detail = engine.isSynchronous ? outside(ids.dataSync(), check.axis, check.size) : undefined
            if (detail !== undefined) return isOutside(instruction, detail)
            if (!engine.isSynchronous) flags.push([instruction, check, check.isOutside(ids)])
          }
          const computed = step(operands.map((place) => tensorAt(values, place)))
          results.forEach((place, i) => {
            values[place] = computed[i]
          })
          for (const place of freed) {
            values[place]?.dispose()
            values[place] = undefined
          }
        }
      } catch (error) {
        const instruction = plan.steps[index]?.instruction
        if (instruction === undefined) throw error
        return fault(instruction, messageOf(error), remedy)
      }
      return index
    }

    const compute = (now: () => number): Effect.Effect<void, Fault> => {
      const from = (first: number): Effect.Effect<void, Fault> =>
        Effect.suspend(() => {
          const next = burst(first, now)
          if (typeof next !== "number") return Effect.fail(next)
          return next < plan.steps.length ? Effect.andThen(Effect.yieldNow, from(next)) : Effect.void
        })
      return from(0)
    }

    const fetch = (tensor: Tensor): Effect.Effect<Elements, Fault> =>
      Effect.tryPromise({ try: () => tensor.data(), catch: (error) => atEnd("reading results", error) })

    const judge = Effect.forEach(flags, ([instruction, { axis, size }, flag]) =>
      Effect.flatMap(fetch(flag), (elements) =>
        elements[0] === 1
          ? Effect.fail(isOutside(instruction, `an id is outside axis "${axis}" of size ${size}`))
          : Effect.void), { discard: true })

    const collect = (ports: ReadonlyArray<Port>): Effect.Effect<Arrays, Fault> =>
      Effect.map(
        Effect.forEach(ports, ({ name, value }) => {
          const tensor = values[plan.places[value] ?? value]
          const kind = lowered.values[value]?.kind ?? "real"
          return Effect.map(
            tensor === undefined ? Effect.succeed(nothing[kind]()) : fetch(tensor),
            (elements) => [name, fromDevice(elements, kind === "code")] as const
          )
        }, { concurrency: "unbounded" }),
        (entries) => new Map(entries)
      )

    const write = (): void => {
      engine.activate()
      const given = new Set<number>()
      memory.exchange(lowered.writes.flatMap(({ name, value }) => {
        const place = plan.places[value] ?? value
        const [cell, tensor] = [supplied.cells.get(name), values[place]]
        if (cell === undefined || tensor === undefined) return []
        if (lent.has(place) || plan.constants[place] !== undefined || given.has(place)) {
          return [[cell, engine.run("Identity", { x: tensor })] as const]
        }
        given.add(place)
        return [[cell, tensor] as const]
      }))
      for (const place of given) values[place] = undefined
    }

    const free = (): void => {
      values.forEach((tensor, place) => {
        if (tensor !== undefined && !lent.has(place) && plan.constants[place] === undefined) tensor.dispose()
      })
      for (const [, , flag] of flags) flag.dispose()
    }

    const refused = engine.complaints().length
    /** What the device refused since the run began: what it computed after that is no result. */
    const listen = Effect.suspend(() => {
      const complaint = engine.complaints()[refused]
      return complaint === undefined ? Effect.void : Effect.fail(atEnd("a kernel", complaint))
    })

    const wrong = checkInputs()
    if (wrong !== undefined) return Effect.fail(wrong)
    return attempt("loading inputs", () => {
      engine.activate()
      load()
    }).pipe(
      Effect.andThen(Effect.clockWith((clock) => compute(() => clock.currentTimeMillisUnsafe()))),
      Effect.andThen(Effect.suspend(() => judge)),
      Effect.andThen(Effect.all([collect(lowered.outputs), collect(lowered.watched)])),
      Effect.tap(listen),
      Effect.tap(attempt("writing cells", write)),
      Effect.map(([outputs, watched]): Computed => ({ outputs, watched })),
      Effect.ensuring(Effect.sync(free))
    )
  })

const nothing = {
  real: () => new Float32Array(0), id: () => new Int32Array(0), truth: () => new Uint8Array(0),
  code: () => new Uint8Array(0)
}

const tensorAt = (values: ReadonlyArray<Tensor | undefined>, place: number): Tensor => {
  const tensor = values[place]
  if (tensor === undefined) throw new TypeError(`there is no value ${place}`)
  return tensor
}

const atEnd = (doing: string, error: unknown): Fault => ({
  instruction: doing, place: "", detail: messageOf(error), remedy
})

const attempt = (doing: string, body: () => void): Effect.Effect<void, Fault> =>
  Effect.try({ try: body, catch: (error) => atEnd(doing, error) })

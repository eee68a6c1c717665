import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { Backend, type BackendError, type Precision } from "../../../src/backend/Backend.ts"
import type { Any, Untyped } from "../../../src/tensor/Node.ts"
import { expressions } from "../../../src/tensor/Print.ts"
import * as Program from "../../../src/tensor/Program.ts"
import type { ShapeError } from "../../../src/tensor/ShapeError.ts"
import * as Specification from "../../../src/tensor/Specification.ts"
import * as T from "../../../src/tensor/Tensor.ts"
import * as Arbitrary from "../../../src/testing/Arbitrary.ts"

const names = ["a", "b", "c"] as const

/** A program over three square cells and a number, some of which it replaces. */
export interface Update {
  readonly size: number
  readonly build: (rate: Untyped, cells: Named) => { readonly outputs: Named; readonly state: Named }
}

/** Tensors by name. */
export type Named = Readonly<Record<string, Untyped>>

type Operation = (x: Untyped, y: Untyped, rate: Untyped) => Untyped

/** The transposed matrix. */
export const turned = (x: Untyped): Untyped => T.rename(T.rename(T.rename(x, "i", "k"), "j", "i"), "k", "j")

/** x y for square matrices. */
export const product = (x: Untyped, y: Untyped): Untyped =>
  T.contract(T.rename(x, "j", "k"), T.rename(y, "i", "k"), "k")

const elementwise: Readonly<Record<string, Operation>> = {
  add: (x, y) => T.add(x, y),
  subtract: (x, y, rate) => T.subtract(T.multiply(x, 0.75), T.multiply(y, rate)),
  multiply: (x, y) => T.multiply(T.tanh(x), y),
  gate: (x) => T.multiply(x, T.sigmoid(T.multiply(x, 1.5))),
  choose: (x, y) => T.select(T.less(x, y), x, y),
  same: (x) => x
}

const others: Readonly<Record<string, Operation>> = {
  turn: (x) => turned(x),
  product: (x, y) => product(x, y),
  affine: (x, y, rate) => T.add(x, T.multiply(product(y, x), rate)),
  scaled: (x, y) => T.multiply(product(x, y), 0.5),
  norm: (x, y) => T.multiply(y, T.rsqrt(T.add(T.sum(T.square(x), ["i", "j"]), 1))),
  rows: (x, y) => T.subtract(x, T.max(y, "i")),
  put: (x, y) => T.put(x, "i", T.ids({ p: 1 }, [0]), T.rename(T.slice(T.tanh(y), "i", 0, 1), "i", "p"), "add"),
  softmax: (x) => T.softmax("j")(x),
  reshape: (x) => T.split(T.merge(x, ["i", "j"], "k"), "k", { i: x.sizes["i"] ?? 1, j: x.sizes["j"] ?? 1 })
}

/** Random updates; made of elementwise operations only, if so asked. */
export const updates = (options: { readonly onlyElementwise: boolean }): fc.Arbitrary<Update> => {
  const operations = options.onlyElementwise ? elementwise : { ...elementwise, ...others }
  const choice = fc.nat({ max: 11 })
  const step = fc.record({ operation: fc.constantFrom(...Object.keys(operations)), x: choice, y: choice })
  const ends = fc.record({ a: fc.option(choice), b: fc.option(choice), c: fc.option(choice), y: fc.option(choice) })
  return fc.tuple(fc.constantFrom(1, 2, 3, 40), fc.array(step, { minLength: 1, maxLength: 8 }), ends)
    .map(([size, steps, chosen]) => {
      const update: Update = {
        size,
        build: (rate, cells) => {
          const pool = names.map((name): Untyped => cells[name]!)
          for (const { operation, x, y } of steps) {
            pool.push(operations[operation]!(pool[x % pool.length]!, pool[y % pool.length]!, rate))
          }
          const end = (name: keyof typeof chosen): Named => {
            const number = chosen[name]
            return number === null ? {} : { [name]: pool[pool.length - 1 - number % pool.length]! }
          }
          return { outputs: end("y"), state: { ...end("a"), ...end("b"), ...end("c") } }
        }
      }
      return Object.assign(update, { [fc.toStringMethod]: () => print(update) })
    })
}

const specificationOf = ({ size }: Update) => ({
  inputs: { rate: Specification.real({}) },
  state: Object.fromEntries(names.map((name) => [name, Specification.real({ i: size, j: size })]))
})

/** The program of an update. */
export const programOf = (update: Update) =>
  Program.makeGeneric("update", specificationOf(update), ({ rate }, cells) =>
    update.build(untyped(rate), Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, untyped(cell)]))))

const untyped = (x: Any): Untyped => x as Untyped

const print = (update: Update): string => {
  const { outputs, state } = Effect.runSync(Effect.map(programOf(update), ({ results, writes }) => ({
    outputs: results.map(([name, node]) => `${name} =\n${expressions([node])}`),
    state: writes.map(([name, node]) => `${name} <-\n${expressions([node])}`)
  })))
  return ["", `size ${update.size}`, ...outputs, ...state].join("\n")
}

/** What three runs of an update give: outputs and cells after each. */
export const runs = (
  update: Update, precision: Precision
): Effect.Effect<ReadonlyArray<ArrayLike<number>>, BackendError | ShapeError, Backend> =>
  Effect.scoped(Effect.gen(function*() {
    const backend = yield* Backend
    const program = yield* programOf(update)
    const count = update.size ** 2
    const scale = update.size ** -0.5 // products of products do not grow
    const initial = (path: string) => Arbitrary.reals(path.codePointAt(0) ?? 0, count).map((x) => x * scale)
    const cells = yield* backend.allocate(program.state, { precision, initial })
    const executable = yield* backend.compile(program, { precision })
    const { run } = yield* executable.bind(cells)
    const found: Array<ArrayLike<number>> = []
    for (let i = 0; i < 3; i++) {
      const outputs = yield* run({ rate: 0.1 })
      found.push(...Object.values(outputs).map(({ elements }) => elements))
      found.push(...Object.values(yield* backend.read(cells)).map(({ elements }) => elements))
    }
    return found
  }))

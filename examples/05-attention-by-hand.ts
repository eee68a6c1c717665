/**
 * Attention on one page, written out by hand, and compared with the library's: its values and its gradients.
 */
import * as Cria from "cria"
import { Attention, Backend, Config, Key, Program, Rope, Specification, Tensor as T, Visibility } from "cria"
import * as OnnxRuntime from "cria/backend/onnx"
import { Effect } from "effect"

type Residual = T.Tensor<"batch" | "position" | "embed">
type Angle = T.Tensor<"position" | "plane">

/** Turns the two parts of every plane by the angle of its position. */
const rotate = <A extends string>(x: T.Tensor<A | "position" | "part" | "plane">, angle: Angle) => {
  const [first, second] = [T.slice(x, "part", 0, 1), T.slice(x, "part", 1, 2)]
  const turned = T.concat("part", [T.negate(second), first])
  return T.add(T.multiply(x, T.cos(angle)), T.multiply(turned, T.sin(angle)))
}

/** Every position mixes the values of the positions up to its own, by how well its query meets their keys. */
const attention = (weights: Attention.Parameters, x: Residual, angle: Angle): Residual => {
  const query = rotate(T.contract(x, weights.query, "embed"), angle)
  const key = rotate(T.contract(x, weights.key, "embed"), angle).pipe(T.rename("position", "source"))
  const value = T.contract(x, weights.value, "embed").pipe(T.rename("position", "source"))

  const headSize = T.size(query, "part") * T.size(query, "plane")
  const scores = T.contract(query, key, ["part", "plane"]).pipe(T.multiply(1 / Math.sqrt(headSize)))

  const length = T.size(x, "position")
  const visible = T.lessEqual(T.positions("source", length), T.positions("position", length))
  const shares = T.select(visible, scores, -Infinity).pipe(T.softmax("source"))

  const mixed = T.contract(shares, value, "source") // the query heads of a `group` share one key and value head
  return T.contract(mixed, weights.output, ["kvHead", "group", "part", "plane"])
}

const [length, planeCount] = [10, 4]
const config = Config.make({ vocabSize: 32, embedSize: 64, layerCount: 1, headCount: 8, kvHeadCount: 2 })
const state = Attention.component.specification(config)
const inputs = { x: Specification.real({ batch: 2, position: length, embed: 64 }) }

const main = Effect.gen(function*() {
  const backend = yield* Backend.Backend
  const both = yield* Program.make("both", { inputs, state }, ({ x }, weights) => {
    const frequency = T.values({ plane: planeCount }, [1, 0.1, 0.01, 0.001]) // 10000 ^ (−plane / 4)
    const angle = T.multiply(T.real(T.positions("position", length)), frequency)
    const encode: Rope.Encode = (heads) => Rope.rotate(heads, { cos: T.cos(angle), sin: T.sin(angle) })

    const byHand = attention(weights, x, angle)
    const library = Attention.groupedQueryAttention(weights, x, encode, Visibility.causal)
    const withGradient = (y: Residual) => ({
      y, ...T.gradient(T.sum(T.square(y), ["batch", "position", "embed"]), weights)
    })
    return { outputs: { byHand: withGradient(byHand), library: withGradient(library) } }
  })
  const weights = yield* backend.allocate(state, { initial: Cria.Initialization.draws(Key.make(1), state) })
  const run = yield* Effect.flatMap(backend.compile(both), (executable) => executable.bind(weights))
  const x = new Float32Array(2 * length * 64)
  Key.fillNormal(Key.make("x"), x, { mean: 0, deviation: 1 })
  const { byHand, library } = yield* run.run({ x })

  for (const name of ["y", "query", "key", "value", "output"] as const) {
    const [mine, theirs] = [byHand[name].elements, library[name].elements]
    const size = Math.max(...Array.from(theirs, Math.abs))
    const difference = Math.max(...Array.from(mine, (value, i) => Math.abs(value - (theirs[i] ?? NaN))))
    console.log(name.padEnd(6), `at most ${size.toPrecision(2)}, the same to six digits: ${difference <= 1e-6 * size}`)
  }
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(OnnxRuntime.layer())))

/* Prints:
y      at most 0.068, the same to six digits: true
query  at most 0.00095, the same to six digits: true
key    at most 0.0018, the same to six digits: true
value  at most 0.29, the same to six digits: true
output at most 0.17, the same to six digits: true
*/

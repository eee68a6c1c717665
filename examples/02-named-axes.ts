/**
 * Named axes: contract, broadcast and rename by name, and what the compiler makes of a mistake.
 */
import { ShapeError, Tensor as T } from "cria"

const x = T.fill({ batch: 2, position: 5, embed: 8 }, 1)
const query = T.fill({ embed: 8, head: 4, plane: 3 }, 1)
const key = T.fill({ embed: 8, head: 4, plane: 3 }, 1)

// A contraction names what it sums. Axes that both have go together, all others go outer.
const queries = T.contract(x, query, "embed")
console.log("queries ", String(queries))

// Every position looks at every source. They are the same tokens in another role: say so.
const keys = T.contract(x, key, "embed").pipe(T.rename("position", "source"))
const scores = T.contract(queries, keys, "plane")
console.log("scores  ", String(scores))

// A mask that knows nothing of batch or head is broadcast by name.
const visible = T.lessEqual(T.positions("source", 5), T.positions("position", 5))
const weights = T.softmaxWhere(scores, visible, "source")
console.log("weights ", String(weights), "\n")

/** What a mistake says when it is evaluated; the compiler has refused each of these lines already. */
const evaluated = (f: () => unknown): void => {
  try {
    console.log(String(f()))
  } catch (error) {
    console.log(error instanceof ShapeError.ShapeError ? error.message : error)
  }
}

// @ts-expect-error Argument of type '"embd"' is not assignable to parameter of type '"batch" | "embed" | "position" …
evaluated(() => T.sum(x, "embd"))

// @ts-expect-error Argument of type '"hidden"' is not assignable to parameter of type '"embed" …
evaluated(() => T.contract(x, query, "hidden"))

// A forgotten rename is no error of sizes: position goes with position. Only the compiler sees it, where the result
// has a type.
const diagonal = T.contract(queries, T.contract(x, key, "embed"), "plane")
// @ts-expect-error Type 'Tensor<"batch" | "head" | "position">' is not assignable to type 'Tensor<… | "source">'
const everyPair: T.Tensor<"batch" | "position" | "source" | "head"> = diagonal
console.log(String(everyPair))

// Sizes are not types. They are checked while the expression is built, in the line at fault.
evaluated(() => T.contract(x, T.fill({ embed: 9, hidden: 2 }, 1), "embed"))

/* Prints:
queries  real [batch: 2, position: 5, head: 4, plane: 3]
scores   real [batch: 2, position: 5, head: 4, source: 5]
weights  real [source: 5, position: 5, batch: 2, head: 4]

sum: axis "embd" must be an axis of the tensor
  tensor  [batch: 2, position: 5, embed: 8]
  Axes are named, not numbered: is it misspelt, renamed or already reduced?
contract: axis "hidden" must be an axis of the tensor
  tensor  [batch: 2, position: 5, embed: 8]
  Axes are named, not numbered: is it misspelt, renamed or already reduced?
real [batch: 2, position: 5, head: 4]
contract: axis "embed" must agree
  left   [batch: 2, position: 5, embed: 8]
  right  [embed: 9, hidden: 2]
  The same name means the same axis. Rename one if they are different axes; otherwise …
*/

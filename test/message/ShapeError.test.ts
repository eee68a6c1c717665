/**
 * Every message of a shape error, as text.
 */
import { assert, describe, it } from "@effect/vitest"
import { make, type Sizes, type Untyped } from "../../src/tensor/Node.ts"
import { ShapeError } from "../../src/tensor/ShapeError.ts"
import * as Specification from "../../src/tensor/Specification.ts"
import * as T from "../../src/tensor/Tensor.ts"
import { leavesOf } from "../../src/testing/Computation.ts"

const leaf = (name: string, kind: T.Kind, sizes: Sizes): Untyped =>
  leavesOf([{ name, kind, sizes, elements: new Float64Array() }])[name]!

const x = leaf("x", "real", { batch: 2, embed: 3 })
const ids = leaf("ids", "id", { batch: 2 })
const seen = leaf("seen", "truth", { batch: 2 })
const notOne: T.Scalar = make({ _tag: "Leaf", role: "input", name: "x" }, [], x.sizes, "real")
const fill = (sizes: Sizes): Untyped => T.fill(sizes, 1)

const notThere = "  Axes are named, not numbered: is it misspelt, renamed or already reduced?"
const sameName = "  The same name means the same axis. Rename one if they are different axes; otherwise one operand "
  + "was built with another configuration."
const wrongKind =
  "  `real` makes numbers of truths, ids and codes, `toIds` ids of numbers, and a comparison truths."
const fraction = "  A fraction or a NaN here usually comes from a configuration whose sizes do not divide."
const taken = "  Two axes of one tensor never share a name: choose another, or rename that axis first."
const empty = "  Nothing came in: an empty batch, an empty text, or a slice that left nothing."
const noId = "  Ids count; what is measured is real. Round it before, or keep it real."
const counted = "  Indices count from 0, and never from the end."

const cases: ReadonlyArray<readonly [thunk: () => unknown, message: ReadonlyArray<string>]> = [
  [() => T.within("block.3", () => T.within("attention", () => T.contract(x, fill({ embed: 5, head: 2 }), "embed"))), [
    "contract, in block.3.attention: axis \"embed\" must agree",
    "  left   [batch: 2, embed: 3]  input x",
    "  right  [embed: 5, head: 2]",
    sameName
  ]],
  [() => T.add(x, fill({ batch: 1, embed: 1 })), [
    "add: axis \"batch\", \"embed\" must agree", "  left   [batch: 2, embed: 3]  input x",
    "  right  [batch: 1, embed: 1]", sameName
  ]],
  [
    () => T.sum(x, "embd"),
    ["sum: axis \"embd\" must be an axis of the tensor", "  tensor  [batch: 2, embed: 3]  input x", notThere]
  ],
  [
    () => T.sum(x, ["embed", "embed"]),
    ["sum: axis \"embed\" is named twice", "  axes  embed, embed", "  Name it once."]
  ],
  [
    () => T.size(x, "vocab"),
    ["size: axis \"vocab\" must be an axis of the tensor", "  tensor  [batch: 2, embed: 3]  input x", notThere]
  ],
  [() => T.softmax("vocab")(x), [
    "softmax: axis \"vocab\" must be an axis of the tensor", "  tensor  [batch: 2, embed: 3]  input x", notThere
  ]],
  [() => T.add(x, ids), [
    "add: operands must be real", "  operand 1  [batch: 2, embed: 3]  input x",
    "  operand 2  [batch: 2] id  input ids", wrongKind
  ]],
  [() => T.equal(x, ids), [
    "equal: operands must be real", "  operand 1  [batch: 2, embed: 3]  input x",
    "  operand 2  [batch: 2] id  input ids", wrongKind
  ]],
  [() => T.and(x, seen), [
    "and: operands must be truth", "  operand 1  [batch: 2, embed: 3]  input x",
    "  operand 2  [batch: 2] truth  input seen", wrongKind
  ]],
  [
    () => T.select(x, x, 0), ["select: operands must be truth", "  operand 1  [batch: 2, embed: 3]  input x", wrongKind]
  ],
  [() => T.exp(ids), ["exp: operands must be real", "  operand 1  [batch: 2] id  input ids", wrongKind]],
  [() => T.fill({ embed: 4096 / 3 }, 0), [
    "fill: a size must be a whole number, zero or more", "  sizes  [embed: 1365.3333333333333]", fraction
  ]],
  [() => Specification.real({ embed: -1 }), [
    "specification: a size must be a whole number, zero or more", "  sizes  [embed: -1]", fraction
  ]],
  [
    () => T.pad(x, "embed", -1, 0),
    ["pad: a size must be a whole number, zero or more", "  sizes  [before: -1, after: 0]", fraction]
  ],
  [() => T.idConstant(1.5), ["id: an id must be a whole number of 32 bits", "  element 0  1.5", noId]],
  [
    () => T.ids({ a: 2 }, [1, 2 ** 31]),
    ["ids: an id must be a whole number of 32 bits", "  element 1  2147483648", noId]
  ],
  [() => T.less(ids, 0.5), ["id: an id must be a whole number of 32 bits", "  element 0  0.5", noId]],
  [() => T.values({ a: 2 }, [1]), [
    "constant: [a: 2] has 2 elements", "  elements  1",
    "  Elements are given in the order of the keys of the sizes, the last changing fastest."
  ]],
  [
    () => T.max(fill({ a: 0 }), "a"),
    ["max: an axis of size 0 has no such value", "  tensor  [a: 0]", "  over    a", empty]
  ],
  [
    () => T.mean(fill({ a: 0 }), "a"),
    ["mean: an axis of size 0 has no such value", "  tensor  [a: 0]", "  over    a", empty]
  ],
  [
    () => T.logSumExp(fill({ a: 0 }), "a"),
    ["logSumExp: an axis of size 0 has no such value", "  tensor  [a: 0]", "  over    a", empty]
  ],
  [
    () => T.rename(x, "batch", "embed"),
    ["rename: axis \"embed\" is already there", "  tensor  [batch: 2, embed: 3]  input x", taken]
  ],
  [
    () => T.spread(x, "embed", 2),
    ["spread: axis \"embed\" is already there", "  tensor  [batch: 2, embed: 3]  input x", taken]
  ],
  [
    () => T.split(x, "embed", { batch: 3 }),
    ["split: axis \"batch\" is already there", "  tensor  [batch: 2, embed: 3]  input x", taken]
  ],
  [() => T.merge(T.spread(x, "row", 2), ["batch", "embed"], "row"), [
    "merge: axis \"row\" is already there", "  tensor  [batch: 2, embed: 3, row: 2]", taken
  ]],
  [
    () => T.topK(x, "embed", "embed", 2),
    ["topK: axis \"embed\" is already there", "  tensor  [batch: 2, embed: 3]  input x", taken]
  ],
  [() => T.slice(x, "embed", 2, 5), [
    "slice: 0 ≤ start ≤ end ≤ 3, the size of \"embed\"", "  tensor  [batch: 2, embed: 3]  input x", "  start   2",
    "  end     5",
    "  Counted from 0, the end not included; nothing is clamped."
  ]],
  [() => T.concat("batch", []), ["concat: needs at least one part", "  axis  batch", "  The list of parts is empty."]],
  [() => T.concat("batch", [x, fill({ batch: 2 })]), [
    "concat: parts must have the same axes", "  part 1  [batch: 2, embed: 3]  input x", "  part 2  [batch: 2]",
    "  Spread the part that lacks an axis."
  ]],
  [() => T.concat("batch", [fill({ batch: 2, a: 1 }), fill({ batch: 2, b: 1 })]), [
    "concat: parts must have the same axes", "  part 1  [batch: 2, a: 1]", "  part 2  [batch: 2, b: 1]",
    "  Spread the part that lacks an axis."
  ]],
  [() => T.split(x, "embed", { head: 2, width: 2 }), [
    "split: the new sizes must multiply to 3, the size of \"embed\"", "  tensor  [batch: 2, embed: 3]  input x",
    "  into    [head: 2, width: 2]", "  Does the configuration divide, heads into widths?"
  ]],
  [() => T.split(x, "embed", {}), [
    "split: needs at least one new axis", "  tensor  [batch: 2, embed: 3]  input x",
    "  An axis of size 1 is taken away by `at(x, axis, 0)`."
  ]],
  [() => T.merge(x, [], "row"), [
    "merge: needs at least one axis", "  tensor  [batch: 2, embed: 3]  input x",
    "  A new axis of size 1 is made by `spread(x, axis, 1)`."
  ]],
  [() => T.take(x, "batch", ids), [
    "take: the ids must not have the axis \"batch\" they choose from", "  tensor  [batch: 2, embed: 3]  input x",
    "  ids     [batch: 2] id  input ids", "  Rename it in the ids."
  ]],
  [
    () => T.take(x, "embed", seen),
    ["take ids: operands must be id", "  operand 1  [batch: 2] truth  input seen", wrongKind]
  ],
  [() => T.take(x, "embed", T.idConstant(-1)), [
    "take: 0 ≤ index < 3, the size of \"embed\"", "  tensor  [batch: 2, embed: 3]  input x", "  index   -1", counted
  ]],
  [() => T.at(x, "embed", 3), [
    "at: 0 ≤ index < 3, the size of \"embed\"", "  tensor  [batch: 2, embed: 3]  input x", "  index   3", counted
  ]],
  [() => T.put(x, "embed", ids, fill({ batch: 3 }), "add"), [
    "put: axis \"batch\" must agree", "  values         [batch: 3]", "  room for them  [batch: 2]", sameName
  ]],
  [() => T.put(x, "embed", ids, fill({}), "add"), [
    "put: the values must have the axes [batch: 2]", "  base    [batch: 2, embed: 3]  input x",
    "  ids     [batch: 2] id  input ids",
    "  values  []", "  Those of the base without \"embed\", and those of the ids: what `take` would give."
  ]],
  [() => T.put(x, "batch", ids, x, "set"), [
    "put: the ids must not have the axis \"batch\" they choose from", "  tensor  [batch: 2, embed: 3]  input x",
    "  ids     [batch: 2] id  input ids", "  Rename it in the ids."
  ]],
  [() => T.topK(x, "embed", "rank", 4), [
    "topK: 0 ≤ count ≤ 3, the size of \"embed\"", "  tensor  [batch: 2, embed: 3]  input x", "  count   4",
    "  There are not more elements to choose from."
  ]],
  [() => T.softmaxWhere(x, seen, "embed"), [
    "softmaxWhere: axis \"embed\" must be an axis of the tensor", "  tensor  [batch: 2] truth  input seen", notThere
  ]],
  [
    () => T.softmaxWhere(x, x, "embed"),
    ["softmaxWhere: operands must be truth", "  operand 1  [batch: 2, embed: 3]  input x", wrongKind]
  ],
  [() => T.gradient(notOne, { x }), [
    "gradient: the loss must be one number", "  loss  [batch: 2, embed: 3]  input x",
    "  Reduce it with a visible mean or sum."
  ]],
  [() => T.gradient(T.constant(1), { ids }), [
    "gradient: only real tensors have one", "  ids  [batch: 2] id  input ids",
    "  Take it with respect to the real leaves of the tree."
  ]],
  [() => T.within("block.3", () => T.recompute({ a: fill({ i: 2 }) }, ({ a }) => T.multiply(a, T.exp(x)))), [
    "recompute, in block.3: every tensor that a gradient could flow to must be one of its inputs",
    "  closed over  [batch: 2, embed: 3]  input x",
    "  Pass it (or what is made of it) through `inputs`, or put `stopGradient` around it."
  ]]
]

describe("a shape error", () => {
  it.each(cases.map(([thunk, message]) => [message[0], thunk, message] as const))("%s", (_, thunk, message) => {
    let thrown: unknown
    try {
      thunk()
    } catch (error) {
      thrown = error
    }
    assert.instanceOf(thrown, ShapeError)
    assert.strictEqual(thrown.message, message.join("\n"))
  })
})

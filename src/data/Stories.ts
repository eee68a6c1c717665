/**
 * Small English stories with numbers in them, made up from a grammar: data for a first run that needs no file.
 *
 *     story i of a part = plot(scene),  the plot and the scene drawn under the key (seed, part, i)
 *
 * Each story is a pure function of seed, part and number, so a corpus of any size needs no memory and can be read
 * from any place.
 *
 * Some facts are held out: certain animals are never met at certain places, and certain pairs of numbers are never
 * added (or taken apart) in the training part, while every validation story holds one of them. So the validation loss
 * shows what a model has understood rather than remembered.
 *
 * From     own grammar and writing; the idea of small stories in simple words is Eldan & Li's 2023 (TinyStories).
 * Checked  test/data/Stories.test.ts (facts disjoint and all present, sums true, no story twice, readable samples
 *          pinned).
 *
 * @module
 */
import * as Stream from "effect/Stream"
import * as Key from "../random/Key.ts"
import * as Document from "./Document.ts"
import type { Part } from "./Document.ts"
import type { Scene, Sum } from "./StoryPlots.ts"
import { counting, plots } from "./StoryPlots.ts"
import type { Animal, Place } from "./StoryWords.ts"
import * as Words from "./StoryWords.ts"

/** Which stories a corpus holds. */
export interface Options {
  readonly seed: number
  /** The number of training stories. */
  readonly train: number
  /** The number of validation stories. */
  readonly validation: number
}

/** An animal at a place. */
export interface Meeting {
  readonly animal: Animal
  readonly place: Place
}

const counts = Array.from({ length: 14 }, (_, i) => i + 2)
const meetings: ReadonlyArray<Meeting> = Words.animals.flatMap((animal) =>
  Words.places.map((place) => ({ animal, place })))
const sums: ReadonlyArray<Sum> = counts.flatMap((left) =>
  counts.filter((right) => left <= right).map((right) => ({ left, right })))

const isHeldOut = (...fact: ReadonlyArray<string | number>): boolean =>
  Key.below(Key.derive(Key.make("held out"), ...fact), 0, 10) === 0

const isHeldOutMeeting = ({ animal, place }: Meeting): boolean => isHeldOut(animal.name, place.name)

const isHeldOutSum = ({ left, right }: Sum): boolean => isHeldOut(Math.min(left, right), Math.max(left, right))

/**
 * The facts that no training story states, about one in ten of each kind; the same for every seed.
 *
 * A sum stands for all its forms: left + right, right + left, and both differences.
 */
export const heldOut: { readonly meetings: ReadonlyArray<Meeting>; readonly sums: ReadonlyArray<Sum> } = {
  meetings: meetings.filter(isHeldOutMeeting),
  sums: sums.filter(isHeldOutSum)
}

const trained = {
  meetings: meetings.filter((meeting) => !isHeldOutMeeting(meeting)),
  sums: sums.filter((sum) => !isHeldOutSum(sum))
}

const heldOutCount = heldOut.meetings.length + heldOut.sums.length

/**
 * One story. A validation story holds exactly one held-out fact; story i holds fact i modulo their number, so every
 * fact occurs.
 */
export const story = (seed: number, part: Part, index: number): string => {
  const key = Key.derive(Key.make(seed), "story", part, index)
  let draws = 0
  const pick = <A>(list: ReadonlyArray<A>): A => list[Key.below(key, draws++, list.length)]!
  const fact = part === "validation" ? index % heldOutCount : undefined
  const meeting = (fact === undefined ? undefined : heldOut.meetings[fact]) ?? pick(trained.meetings)
  const held = fact === undefined ? undefined : heldOut.sums[fact - heldOut.meetings.length]
  const sum = held ?? pick(trained.sums)
  const isSwapped = pick([true, false])
  const hero = pick(Words.people)
  const scene: Scene = {
    ...meeting,
    hero,
    friend: pick(Words.people.filter((person) => person !== hero)),
    adult: pick(Words.adults),
    weather: pick(Words.weathers),
    colour: pick(Words.colours),
    thing: pick(Words.belongings),
    fear: pick(Words.fears),
    work: pick(Words.works),
    isPromised: pick([true, false, false]),
    sum: isSwapped ? { left: sum.right, right: sum.left } : sum,
    say: (...ways) => pick(ways)
  }
  return pick(held === undefined ? plots : counting)(scene).join("\n")
}

/** The documents of a corpus of stories, the training part first. Each states its part. */
export const documents = ({ seed, train, validation }: Options): Stream.Stream<Document.Document> => {
  const part = (name: Part, count: number) =>
    Stream.map(Stream.range(0, count - 1), (index) =>
      Document.make(story(seed, name, index), { file: `${name} stories of seed ${seed}`, line: index + 1 }, name))
  return Stream.concat(part("train", train), part("validation", validation))
}

/** About how many bytes a corpus has, from a few of its stories. */
export const estimatedBytes = ({ seed, train, validation }: Options): number => {
  const sample = 100
  let characters = 0
  for (let index = 0; index < sample; index++) characters += story(seed, "train", index).length
  return Math.round(characters / sample * (train + validation))
}

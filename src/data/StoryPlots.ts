/**
 * The plots of the embedded stories: each turns a scene into paragraphs whose end depends on how they began.
 *
 * A plot says everything through `say`, which chooses one of several ways to put it. Whoever reads far enough can
 * foresee the end: what was lost, promised, feared or counted at the beginning comes back, and sums come out right.
 *
 * Checked  test/data/Stories.test.ts (sums are true, ends refer to beginnings, every plot occurs).
 *
 * @module
 */
import type { Animal, Person, Place, Weather } from "./StoryWords.ts"

/** A sum of two counts, each at least 2. */
export interface Sum {
  readonly left: number
  readonly right: number
}

/** Everything a plot may speak of. */
export interface Scene {
  readonly hero: Person
  readonly friend: Person
  readonly adult: string
  readonly animal: Animal
  readonly place: Place
  readonly weather: Weather
  readonly colour: string
  readonly thing: string
  readonly fear: readonly [fear: string, advice: string, after: string]
  readonly work: readonly [work: string, material: string, result: string]
  readonly sum: Sum
  /** Whether the hero promised at the beginning to be home before dark. */
  readonly isPromised: boolean
  /** One of several ways to say the same. */
  readonly say: (...ways: ReadonlyArray<string>) => string
}

/** The paragraphs of a story. */
export type Plot = (scene: Scene) => ReadonlyArray<string>

const article = (noun: string): string => `${/^[aeiou]/.test(noun) ? "an" : "a"} ${noun}`

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

const opening = ({ adult, hero, isPromised, place, say, weather: { day, sign } }: Scene) => {
  const { kind, name, their, they } = hero
  const at = `${place.preposition} the ${place.name}`
  if (isPromised) {
    return say(
      `On ${article(day)} day, ${name} said to ${their} ${adult}, "May I go to the ${place.name}?" "Yes," said ` +
        `${their} ${adult}, "but be home before dark." "I promise," said ${name}.`,
      `${sign} "I am going to the ${place.name}," said ${name}, "and I promise to be home before dark."`)
  }
  return say(
    `Once there was a ${kind} named ${name}. One ${day} day, ${they} was ${at}.`,
    `It was ${article(day)} morning. ${sign} ${name} went to the ${place.name}.`,
    `${sign} On such ${article(day)} day, ${name} liked to be ${at}.`)
}

const arrival = ({ animal: { call, came, name }, say }: Scene) =>
  say(
    `Then ${article(name)} ${came} up. "${call}" it said.`,
    `"${call}" There was ${article(name)}. It ${came} closer.`,
    `Just then, ${article(name)} ${came} by and said, "${call}"`)

const ending = ({ friend, hero: { name, their, they }, adult, isPromised, say, weather: { evening } }: Scene) =>
  isPromised
    ? say(
      `It was not yet dark when ${name} came home, just as ${they} had promised. ${evening}`,
      `"You kept your promise," said ${their} ${adult}, because it was not yet dark. ${evening}`)
    : say(
      evening,
      `${name} and ${friend.name} went home together. ${evening}`,
      `It had been a good day. ${evening}`)

/** Something is found, more is given, all is counted, and some food is shared: a sum. */
const gift: Plot = (s) => {
  const { animal: { food }, friend: { name: other }, hero: { name, them, they }, place: { things }, say, sum } = s
  const { left, right } = sum
  const total = left + right
  return [
    `${opening(s)} ${capital(they)} found ${left} ${things}. ` + say(
      `${other} came and gave ${them} ${right} more. "Now you have ${total} ${things}," said ${other}.`,
      `${other} had ${right} ${things} and gave them all to ${name}. Now ${name} had ${total} ${things}.`,
      `Then ${they} found ${right} more. "How many are there?" asked ${other}. "${total}!" said ${name}.`),
    `${arrival(s)} ` + say(
      `It was hungry, so ${name} gave it some ${food}. "You are kind," said ${other}.`,
      `"It would like some ${food}," said ${other}. They gave it some, and it was glad.`),
    say(
      `${name} kept the ${total} ${things} in a box.`,
      `At home, ${name} put all ${total} ${things} on the window sill.`,
      `"${total} ${things} and one new friend," said ${name}.`) + ` ${ending(s)}`
  ]
}

/** Something is collected, some of it is gone, and what is left is counted: a difference. */
const loss: Plot = (s) => {
  const { animal, friend: { name: other }, hero: { name, they }, place: { things }, say, sum: { left, right } } = s
  const total = left + right
  return [
    `${opening(s)} ${other} came too. Together they had ${total} ${things} in a bag.`,
    `${arrival(s)} ` + say(
      `It put its nose into the bag and carried off ${right} ${things}. Only ${left} were left.`,
      `The bag fell over, and ${right} of the ${things} were gone. Now there were only ${left}.`,
      `"Oh no!" cried ${other}. "It took ${right} of our ${things}!" They counted again. There were ${left} left.`),
    say(
      `${name} was sad at first. Then ${they} laughed. "It was only looking for ${animal.food}!"`,
      `${other} was angry, but ${name} said, "It is only hungry." So they brought it some ${animal.food}.`),
    say(
      `${left} ${things} were enough for two friends. ${ending(s)}`,
      `They took the ${left} ${things} home and told everybody about the ${animal.name}. ${ending(s)}`)
  ]
}

/** A work needs more than there is; the friend brings the rest: a difference and a sum. */
const making: Plot = (s) => {
  const { animal: { skill }, friend: { name: other, their, they: otherThey }, hero: { name, they }, say, sum } = s
  const { left, right } = sum
  const total = left + right
  const [work, material, result] = s.work
  return [
    `${opening(s)} ` + say(
      `${name} wanted to make ${work}. "I need ${total} ${material}," ${they} said, "but I have only ${left}."`,
      `"Let us make ${work}," said ${name}. They needed ${total} ${material}, and there were ${left}.`),
    say(
      `"Then ${right} are missing," said ${other}, and ran to get ${right} ${material}.`,
      `${other} counted on ${their} fingers. "We need ${right} more!" ${capital(otherThey)} found ${right} at home.`) +
    ` ${arrival(s)} ` + say(
      `It could ${skill}, and that was a great help.`,
      `"Can you help us?" asked ${name}. It could, because it knew how to ${skill}.`),
    `With all ${total} ${material} they made ${work}. ${result} ${ending(s)}`
  ]
}

/** Two collect, one has more, and they make it fair by putting both together: a sum. */
const contest: Plot = (s) => {
  const { animal: { food }, friend: { name: other }, hero: { name }, place: { things }, say, sum: { left, right } } = s
  const total = left + right
  const winner = left > right ? name : other
  return [
    `${opening(s)} ${other} was there too. "Let us see who finds more ${things}!" said ${other}.`,
    `${name} found ${left}, and ${other} found ${right}. ` + (left === right
      ? say("They had found the same number, so both of them won.", "Nobody had more and nobody had less.")
      : say(`So ${winner} won.`, `"${winner} has more!" they both said.`)),
    `${arrival(s)} ` + say(
      `It looked at the ${things} as if they were ${food}, and the children had to laugh.`,
      `They gave it some ${food}, because nobody should go without a prize.`),
    say(
      `Then they put everything into one basket. It held ${total} ${things}.`,
      `"Together we have ${total} ${things}," said ${name}, "and that is better than winning."`) + ` ${ending(s)}`
  ]
}

/** A thing is lost; an animal's own skill finds it; what is found is what was lost. */
const lost: Plot = (s) => {
  const { animal, colour, friend: { name: other }, hero: { name, their, them, they }, place: { spot }, say, thing } = s
  const own = `${colour} ${thing}`
  return [
    `${opening(s)} ${capital(they)} had ${their} ${own} with ${them}. ` + say(
      `But when ${they} looked for it, it was gone. "My ${thing}!" cried ${name}.`,
      `Then ${they} played with ${other}, and when they stopped, the ${thing} was nowhere to be seen.`),
    `${arrival(s)} ` + say(
      `"Have you seen my ${own}?" asked ${name}. The ${animal.name} could ${animal.skill}, and off it went.`,
      `"You can ${animal.skill}," said ${other}. "Please help us to find the ${own}."`),
    say(
      `They looked and looked. At last they found something ${colour} ${spot}. It was the ${thing}!`,
      `The ${animal.name} stopped. There, ${spot}, lay the ${own}.`) + " " + say(
      `"Thank you!" said ${name}, and gave the ${animal.name} some ${animal.food}.`,
      `${name} was so happy that the ${animal.name} got ${animal.food} that evening.`),
    `${say(`${name} never lost the ${own} again.`, `The ${own} was safe.`)} ${ending(s)}`
  ]
}

/** A warning is given; whether it is heeded decides how the day goes, and the warning comes back at the end. */
const warning: Plot = (s) => {
  const { adult, animal, friend: { name: other }, hero: { name, their, them, they }, place, say, weather } = s
  const [deed, reason] = place.danger
  const isHeeded = say("heeded", "forgotten") === "heeded"
  return [
    `${opening(s)} "Do not ${deed}," ${their} ${adult} had said, "because ${reason}."`,
    `${arrival(s)} "Come," said ${other}, "let us ${deed}!"`,
    isHeeded
      ? say(
        `But ${name} thought of ${their} ${adult} and said, "No, because ${reason}." So they played with the ` +
          `${animal.name} and gave it ${animal.food}.`,
        `"I must not," said ${name}. ${other} nodded. They fed the ${animal.name} some ${animal.food}, and that was ` +
          "fun too.")
      : say(
        `${name} forgot the warning and did it. "${animal.call}" cried the ${animal.name}, but it was too late. ` +
          `${name} got hurt, and ${other} had to help ${them} home.`,
        `${name} did it. It went wrong at once, and ${they} began to cry. The ${animal.name} stayed until ${their} ` +
          `${adult} came.`),
    isHeeded
      ? `${name}'s ${adult} was proud of ${them}. ${ending(s)}`
      : `"I am sorry," said ${name}. "Now I know that ${reason}." ${weather.evening}`
  ]
}

/** A kindness at the beginning is paid back at the end by the same animal, with what it can do best. */
const kindness: Plot = (s) => {
  const { animal, colour, friend: { name: other }, hero: { name, their, them }, place: { spot }, say, thing } = s
  return [
    `${opening(s)} ` + say(
      `Under a bush sat ${article(animal.name)}. It was cold and hungry. "${animal.call}" it said softly.`,
      `There ${name} met ${article(animal.name)} that had hurt its foot. "${animal.call}" it said.`),
    say(
      `${name} gave it ${animal.food} and wrapped it in ${their} ${colour} scarf.`,
      `${name} sat down beside it and fed it ${animal.food} until it felt better.`) +
    ` "Why do you do that?" asked ${other}. "Because it needs me," said ${name}. ${ending(s)}`,
    say(
      `The next day, ${name}'s ${thing} got stuck ${spot}, and nobody could reach it.`,
      `A week later, ${other} got stuck ${spot}, and nobody could help.`) +
    ` "${animal.call}" It was the ${animal.name}! It could ${animal.skill}, and soon all was well.`,
    say(
      `"You helped me, and I help you," it seemed to say.`,
      `${name} had been kind to the ${animal.name}, and now the ${animal.name} was kind to ${them}.`)
  ]
}

/** A fear, a piece of advice that fits it, and what the fear turns into. */
const courage: Plot = (s) => {
  const { adult, animal, friend: { name: other }, hero: { name, their }, say } = s
  const [fear, advice, after] = s.fear
  return [
    `${opening(s)} ${name} was afraid of ${fear}. ` + say(
      `${other} was not afraid of anything.`, `"Everybody is afraid of something," said ${other}.`),
    `${arrival(s)} ` + say(
      `But it would not come nearer. It was afraid of ${fear} too!`,
      `It needed help, but first ${name} had to face ${fear}.`),
    say(
      `${name} remembered what ${their} ${adult} always said: "${advice}."`,
      `"${advice}," said ${other}.`) + ` ${name} did just that, and ${after}.`,
    say(
      `The ${animal.name} ate ${animal.food} out of ${their} hand. ${name} was not afraid of ${fear} any more.`,
      `From that day on, ${name} was not afraid of ${fear}, and neither was the ${animal.name}.`) + ` ${ending(s)}`
  ]
}

/** The plots that state a sum or a difference. */
export const counting: ReadonlyArray<Plot> = [gift, loss, making, contest]

/** All plots. */
export const plots: ReadonlyArray<Plot> = [...counting, lost, warning, kindness, courage]

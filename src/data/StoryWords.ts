/**
 * The words of the embedded stories: who is in them, where they play, and what belongs to each animal, place and
 * weather.
 *
 * Every animal has its call, its food and its gait, every place its things and its hiding spot, so that a story about
 * a pair of them that was never seen before can still be told right. The name of an animal or a place occurs in no
 * other word list.
 *
 * Checked  test/data/Stories.test.ts (the names are words of their own).
 *
 * @module
 */

/** A child, with the forms of the pronoun. */
export interface Person {
  readonly name: string
  readonly kind: "girl" | "boy"
  readonly they: "she" | "he"
  readonly them: "her" | "him"
  readonly their: "her" | "his"
}

const girl = (name: string): Person => ({ name, kind: "girl", they: "she", them: "her", their: "her" })
const boy = (name: string): Person => ({ name, kind: "boy", they: "he", them: "him", their: "his" })

/** Children that a story can be about. */
export const people: ReadonlyArray<Person> = [
  ...[
    "Mia", "Anna", "Lily", "Rosa", "Ella", "Nora", "Ida", "Clara", "Zoe", "Maya", "Ruby", "Lena", "Tess", "Greta",
    "Alma", "Vera", "Priya", "Yuki", "Amina", "Sofia"
  ].map(girl),
  ...[
    "Tom", "Ben", "Max", "Leo", "Sam", "Finn", "Oscar", "Hugo", "Jack", "Paul", "Noah", "Emil", "Ravi", "Kenji", "Omar",
    "Luca", "Theo", "Felix", "Adam", "Ivan"
  ].map(boy)
]

/** Grown-ups of the family. */
export const adults = ["mother", "father", "grandmother", "grandfather", "aunt", "uncle"] as const

/** An animal and what is its own. */
export interface Animal {
  readonly name: string
  readonly call: string
  readonly food: string
  /** How it comes: a verb in the past tense. */
  readonly came: string
  /** What it is good at, after "to": the help it can give. */
  readonly skill: string
}

const animal = (name: string, call: string, food: string, came: string, skill: string): Animal =>
  ({ name, call, food, came, skill })

/** Animals that a story can meet. */
export const animals: ReadonlyArray<Animal> = [
  animal("duck", "Quack, quack!", "bread crumbs", "waddled", "swim without a sound"),
  animal("hen", "Cluck, cluck!", "corn", "strutted", "scratch in the ground"),
  animal("goat", "Meh, meh!", "thistles", "trotted", "climb where nobody else can"),
  animal("fox", "Yip, yip!", "blackberries", "slipped", "follow any smell"),
  animal("owl", "Hoo, hoo!", "beetles", "glided", "see in the dark"),
  animal("mouse", "Squeak, squeak!", "cheese", "scurried", "fit through the smallest hole"),
  animal("frog", "Croak, croak!", "flies", "hopped", "jump very far"),
  animal("pony", "Neigh, neigh!", "sugar lumps", "galloped", "carry heavy things"),
  animal("squirrel", "Chik, chik!", "hazelnuts", "darted", "climb up and down in a second"),
  animal("goose", "Honk, honk!", "clover", "marched", "make a great noise"),
  animal("hedgehog", "Snuffle, snuffle!", "worms", "shuffled", "look under leaves"),
  animal("kitten", "Meow, meow!", "cream", "tiptoed", "walk without being heard"),
  animal("puppy", "Woof, woof!", "biscuits", "bounded", "dig deep holes"),
  animal("sparrow", "Tweet, tweet!", "seeds", "fluttered", "look down from above"),
  animal("lamb", "Baa, baa!", "daisies", "skipped", "keep everybody warm"),
  animal("donkey", "Hee-haw!", "hay", "plodded", "pull very hard"),
  animal("crow", "Caw, caw!", "cherries", "flapped", "find things that shine"),
  animal("piglet", "Oink, oink!", "turnips", "rolled", "push with its nose"),
  animal("calf", "Moo, moo!", "buttercups", "ambled", "push things out of the way"),
  animal("parrot", "Squawk, squawk!", "grapes", "swooped", "shout louder than anybody")
]

/** A place and what belongs to it. */
export interface Place {
  readonly name: string
  /** Before "the" and the name. */
  readonly preposition: string
  /** Things to collect there, more than one of them. */
  readonly things: string
  /** Where something may be hidden there. */
  readonly spot: string
  /** What one must not do there, after "do not", and what comes of it, after "because". */
  readonly danger: readonly [string, string]
}

const place = (
  name: string, preposition: string, things: string, spot: string, danger: readonly [string, string]
): Place => ({ name, preposition, things, spot, danger })

/** Where a story can happen. */
export const places: ReadonlyArray<Place> = [
  place("beach", "at", "shells", "behind an old boat", ["run into the waves", "the waves are strong"]),
  place("forest", "in", "pine cones", "under a fallen tree", ["leave the path", "it is easy to get lost there"]),
  place("meadow", "in", "poppies", "in the tall grass", ["touch the nettles", "nettles sting"]),
  place("orchard", "in", "pears", "under the ladder", ["climb the thin branches", "thin branches break"]),
  place("market", "at", "plums", "behind the fruit stall", ["pull at the pile", "the whole pile comes down"]),
  place("park", "in", "chestnuts", "beneath a bench", ["sit on the wet paint", "wet paint sticks"]),
  place("river", "by", "pebbles", "under the bridge", ["step on the green stones", "green stones are slippery"]),
  place("lake", "by", "smooth stones", "beside the jetty", ["stand up in a rowing boat", "a rowing boat tips over"]),
  place("barn", "in", "eggs", "behind the bales of straw", ["jump from the loft", "the floor is hard"]),
  place("mill", "at", "feathers", "under the creaking stairs", ["open the flour bags", "flour gets everywhere"]),
  place("castle", "at", "old coins", "behind the iron gate", ["lean on the old wall", "the old wall is loose"]),
  place("harbour", "at", "corks", "in a coil of rope", ["untie the ships", "ships drift away"]),
  place("hill", "on", "mushrooms", "behind a big rock", ["race down the steep side", "nobody can stop there"]),
  place("garden", "in", "strawberries", "under the rose bush", ["reach into the roses", "roses have thorns"]),
  place("station", "at", "tickets", "below the big clock", ["lean over the edge", "the trains are fast"]),
  place("lighthouse", "at", "bits of sea glass", "on the winding stairs", ["look into the lamp", "it is too bright"])
]

/** A weather: how a story begins in it, and how the day ends. */
export interface Weather {
  readonly day: string
  readonly sign: string
  readonly evening: string
}

/** What the weather can be. */
export const weathers: ReadonlyArray<Weather> = [
  { day: "sunny", sign: "The sun was warm on the roofs.", evening: "The sun went down, red and slow." },
  { day: "rainy", sign: "The rain drummed on the roofs.", evening: "When the rain stopped, there was a rainbow." },
  { day: "snowy", sign: "The snow was as high as a boot.", evening: "Then there was hot cocoa, because of the snow." },
  { day: "windy", sign: "The wind pulled at every hat.", evening: "All night the wind sang in the chimney." },
  { day: "foggy", sign: "The fog was as white as milk.", evening: "At last the fog lifted, and they saw a star." },
  { day: "hot", sign: "It was so hot that the air shook.", evening: "They drank cold lemonade, for it was still hot." },
  { day: "frosty", sign: "There was frost on every window.", evening: "The fire was lit, for the frost was back." },
  { day: "cloudy", sign: "Grey clouds hung over the roofs.", evening: "Then the clouds parted, and the moon came out." }
]

/** Colours of things. */
export const colours = ["red", "blue", "green", "yellow", "purple", "orange", "white", "silver", "brown"] as const

/** Things that somebody owns and can lose. */
export const belongings = [
  "kite", "scarf", "ball", "hat", "drum", "lantern", "whistle", "umbrella", "basket", "mitten", "ribbon", "spade"
] as const

/** What somebody may be afraid of, what helps, and what it turns into. */
export const fears: ReadonlyArray<readonly [fear: string, advice: string, after: string]> = [
  ["the dark", "Look for one small light and walk towards it", "the dark was full of small lights"],
  ["thunder", "Count slowly until it comes, and it will be only a number", "the thunder was only a big drum"],
  ["deep water", "Hold my hand and put in one foot first", "the water was cool and friendly"],
  ["strangers", "Say good morning, and they will not be strangers any more", "the strangers had become friends"],
  ["high places", "Look at the birds and not at the ground", "the world looked small and beautiful"],
  ["loud noises", "Sing a song that is louder", "the noise was lost in the song"]
]

/** Something to make: what it is, the one material that is counted, and what it does in the end. */
export const works: ReadonlyArray<readonly [work: string, material: string, result: string]> = [
  ["a bird house", "nails", "By evening a small bird looked out of it."],
  ["a raft", "logs", "It floated, and it did not sink at all."],
  ["a tower", "bricks", "It was taller than anybody there."],
  ["a quilt", "patches", "It was big enough for everybody to hide under."],
  ["a necklace", "beads", "It shone when the light fell on it."],
  ["a fence", "boards", "It stood straight, and nobody could push it over."]
]

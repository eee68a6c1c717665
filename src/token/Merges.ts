/**
 * Learning byte-pair merges: again and again, the most frequent adjacent pair becomes a piece.
 *
 *     repeat  (l, r) ← argmax count(l r);  piece l · r;  replace l r by l · r
 *     ties: fewer characters first, then the smaller UTF-8 byte string
 *
 * From     Sennrich et al. 2016, algorithm 1; google/sentencepiece, `src/bpe_model_trainer.cc`.
 * Checked  test/token/Merges.test.ts (a direct, quadratic implementation on random corpora),
 *          test/token/Trainer.test.ts (SentencePiece's unit goldens; botchan's 664 merges).
 * Departs  in method: counts are kept up to date and the best pair comes from a heap; SentencePiece recounts and scans.
 *          Its approximation is kept, because it shows in the result: only *active* pairs compete, reset every 100
 *          pieces to the most frequent max(1000, 5 %). Where pairs tie for the last active place, all of them are
 *          active here; SentencePiece takes some, by the order of its hash table.
 *
 * @module
 */
import { grown } from "./GrowingArray.ts"
import * as PairTable from "./PairTable.ts"
import { anyScript, isDigit, scriptOf, type Script } from "./Script.ts"

/** Which pieces may be formed. */
export interface Rules {
  readonly maxPieceLength: number
  readonly allowWhitespaceOnlyPieces: boolean
  readonly splitDigits: boolean
  readonly splitByUnicodeScript: boolean
}

/** Words as code points of known characters, −1 for rare ones, and how often each occurred. */
export interface Words {
  readonly characters: ReadonlyArray<ReadonlyArray<number>>
  readonly counts: ReadonlyArray<number>
}

const space = 0x2581
const invalid = -2
/** SentencePiece's constants: pieces between two resets of the active pairs, and how many pairs stay active. */
const resetInterval = 100
const leastActive = 1000
const activeShare = Math.fround(0.05)

/** What validity of a concatenation depends on, for one symbol. */
interface Form {
  readonly text: string
  readonly length: number
  readonly isSpaces: boolean
  readonly startsWithSpace: boolean
  readonly hasDigit: boolean
  readonly script: Script
}

const characterForm = (codePoint: number): Form => ({
  text: String.fromCodePoint(codePoint),
  length: 1,
  isSpaces: codePoint === space,
  startsWithSpace: codePoint === space,
  hasDigit: isDigit(codePoint),
  script: codePoint === space ? anyScript : scriptOf(codePoint)
})

const joinedForm = (left: Form, right: Form): Form => ({
  text: left.text + right.text,
  length: left.length + right.length,
  isSpaces: left.isSpaces && right.isSpaces,
  startsWithSpace: left.startsWithSpace,
  hasDigit: left.hasDigit || right.hasDigit,
  script: left.script === anyScript ? right.script : left.script
})

/** Whether two symbols may be one piece; both are valid by themselves. */
const mayJoin = (left: Form, right: Form, rules: Rules): boolean =>
  left.length + right.length <= rules.maxPieceLength &&
  !(rules.splitDigits && (left.hasDigit || right.hasDigit)) &&
  // A space stands first, or the piece is nothing but spaces.
  (left.isSpaces && right.isSpaces
    ? rules.allowWhitespaceOnlyPieces
    : !right.startsWithSpace && !(left.isSpaces && left.length > 1)) &&
  (!rules.splitByUnicodeScript ||
    left.script === anyScript || right.script === anyScript || left.script === right.script)

/** Learns up to `limit` pieces, in the order in which SentencePiece finds them; fewer when no pair is left. */
export const learn = (words: Words, rules: Rules, limit: number): ReadonlyArray<string> => {
  const forms: Array<Form> = []
  const symbolOf = new Map<number, number>()
  let hasRare = false
  let places = 0
  for (const word of words.characters) places += word.length

  // The text: one place for each character of each different word. A merged symbol stays at its first place.
  const symbolAt = new Int32Array(places)
  const nextPlace = new Int32Array(places)
  const previousPlace = new Int32Array(places)
  const weight = new Float64Array(places)
  let place = 0
  words.characters.forEach((word, index) => {
    word.forEach((character, i) => {
      if (character < 0) hasRare = true
      else if (!symbolOf.has(character)) {
        symbolOf.set(character, forms.length)
        forms.push(characterForm(character))
      }
      symbolAt[place] = character < 0 ? -1 : symbolOf.get(character)!
      previousPlace[place] = i === 0 ? -1 : place - 1
      nextPlace[place] = i === word.length - 1 ? -1 : place + 1
      weight[place++] = words.counts[index]!
    })
  })

  // The pairs, by index, and for each the chain of places where its left half stood when it was found there.
  const table = PairTable.make(1 << 12)
  const pairs = pairStore()
  let chainPlace = new Int32Array(places * 2 + 16)
  let chainNext = new Int32Array(places * 2 + 16)
  let chained = 0
  /**
   * What SentencePiece's table of symbols holds now: characters and pairs that are not yet pieces. Its share of active
   * pairs depends on it.
   */
  let cached = forms.length + (hasRare ? 1 : 0)
  let living = 0
  let epoch = 0
  let threshold = -Infinity

  const heap = pairHeap(pairs, forms)

  const addPair = (left: number, right: number, fresh: Array<number> | undefined): void => {
    const l = symbolAt[left]!
    const r = symbolAt[right]!
    if (l < 0 || r < 0) return
    let pair = PairTable.get(table.slots, l, r)
    if (pair === invalid) return
    if (pair === PairTable.absent) {
      if (!mayJoin(forms[l]!, forms[r]!, rules)) return PairTable.set(table, l, r, invalid)
      pair = pairs.add(l, r, forms[l]!.length + forms[r]!.length, epoch)
      PairTable.set(table, l, r, pair)
      cached++
      living++
      fresh?.push(pair)
    }
    if (chained === chainPlace.length) {
      chainPlace = grown(new Int32Array(2 * chained), chainPlace)
      chainNext = grown(new Int32Array(2 * chained), chainNext)
    }
    chainPlace[chained] = left
    chainNext[chained] = -1
    if (pairs.tail[pair]! < 0) pairs.head[pair] = chained
    else chainNext[pairs.tail[pair]!] = chained
    pairs.tail[pair] = chained++
    pairs.count[pair]! += weight[left]!
  }

  /** One occurrence of a pair is about to disappear. */
  const removePair = (left: number, right: number, best: number): void => {
    const pair = PairTable.get(table.slots, symbolAt[left]!, symbolAt[right]!)
    if (pair < 0 || pair === best) return
    if (pairs.isPiece[pair] === 1) {
      // Dropped as a second way to a piece that exists. SentencePiece makes it anew here, with no occurrence and not
      // active.
      pairs.isPiece[pair] = 0
      pairs.count[pair] = 0
      pairs.isGhost[pair] = 1
      pairs.savedEpoch[pair] = epoch
      pairs.saved[pair] = -1
      pairs.madeIn[pair] = -1
      cached++
      living++
      heap.push(pair)
    }
    if (pairs.isGhost[pair] === 1) return
    if (pairs.savedEpoch[pair] !== epoch) {
      pairs.savedEpoch[pair] = epoch
      pairs.saved[pair] = pairs.count[pair]!
    }
    pairs.count[pair]! -= weight[left]!
  }

  for (let at = 0; at < places; at++) if (nextPlace[at]! >= 0) addPair(at, nextPlace[at]!, undefined)
  for (let pair = 0; pair < pairs.size(); pair++) heap.push(pair)

  const pieces: Array<string> = []
  const found = new Set<string>()
  let waiting: Array<number> = []
  let mustReset = true
  while (pieces.length < limit) {
    if (mustReset) {
      epoch++
      threshold = activeThreshold(pairs, living, Math.max(leastActive, Math.trunc(Math.fround(cached * activeShare))))
      for (const pair of waiting) heap.push(pair)
      waiting = []
      mustReset = false
    }
    const best = heap.pop()
    if (best < 0) break
    const atReset = pairs.savedEpoch[best] === epoch ? pairs.saved[best]! : pairs.count[best]!
    if (pairs.madeIn[best] !== epoch && atReset < threshold) {
      waiting.push(best)
      continue
    }
    pairs.isPiece[best] = 1
    cached--
    living--
    const left = pairs.left[best]!
    const right = pairs.right[best]!
    const form = joinedForm(forms[left]!, forms[right]!)
    const isNew = !found.has(form.text)
    if (isNew) pieces.push(form.text)
    // Also after a second way to a piece that exists, which makes no progress: SentencePiece then resets again.
    mustReset = pieces.length % resetInterval === 0
    if (!isNew) continue
    found.add(form.text)
    const symbol = forms.length
    forms.push(form)
    const fresh: Array<number> = []
    for (let link = pairs.head[best]!; link >= 0; link = chainNext[link]!) {
      const at = chainPlace[link]!
      const second = nextPlace[at]!
      if (symbolAt[at] !== left || second < 0 || symbolAt[second] !== right) continue
      const before = previousPlace[at]!
      const after = nextPlace[second]!
      if (before >= 0) removePair(before, at, best)
      if (after >= 0) removePair(second, after, best)
      symbolAt[at] = symbol
      symbolAt[second] = -1
      nextPlace[at] = after
      if (after >= 0) previousPlace[after] = at
      if (before >= 0) addPair(before, at, fresh)
      if (after >= 0) addPair(at, after, fresh)
    }
    for (const pair of fresh) heap.push(pair)
  }
  return pieces
}

type PairStore = ReturnType<typeof pairStore>

const pairStore = () => {
  const store = {
    left: new Int32Array(4096),
    right: new Int32Array(4096),
    length: new Int32Array(4096),
    count: new Float64Array(4096),
    /** The count at the last reset of the active pairs, if it has changed since (`savedEpoch` says so). */
    saved: new Float64Array(4096),
    savedEpoch: new Int32Array(4096),
    madeIn: new Int32Array(4096),
    head: new Int32Array(4096),
    tail: new Int32Array(4096),
    isPiece: new Uint8Array(4096),
    isGhost: new Uint8Array(4096),
    size: () => size,
    add: (left: number, right: number, length: number, epoch: number): number => {
      if (size === store.left.length) grow()
      store.left[size] = left
      store.right[size] = right
      store.length[size] = length
      store.madeIn[size] = epoch
      store.savedEpoch[size] = -1
      store.head[size] = store.tail[size] = -1
      return size++
    }
  }
  let size = 0
  const grow = (): void => {
    const room = size * 2
    store.left = grown(new Int32Array(room), store.left)
    store.right = grown(new Int32Array(room), store.right)
    store.length = grown(new Int32Array(room), store.length)
    store.count = grown(new Float64Array(room), store.count)
    store.saved = grown(new Float64Array(room), store.saved)
    store.savedEpoch = grown(new Int32Array(room), store.savedEpoch)
    store.madeIn = grown(new Int32Array(room), store.madeIn)
    store.head = grown(new Int32Array(room), store.head)
    store.tail = grown(new Int32Array(room), store.tail)
    store.isPiece = grown(new Uint8Array(room), store.isPiece)
    store.isGhost = grown(new Uint8Array(room), store.isGhost)
  }
  return store
}

const histogram = new Int32Array(1 << 16)

/** The count that a pair needs to be active: that of the `places`-th most frequent, or none if there are not more. */
const activeThreshold = (pairs: PairStore, living: number, places: number): number => {
  if (living <= places) return -Infinity
  histogram.fill(0)
  const large: Array<number> = []
  for (let pair = 0; pair < pairs.size(); pair++) {
    if (pairs.isPiece[pair] === 1) continue
    const count = pairs.count[pair]!
    if (count < histogram.length) histogram[count]!++
    else large.push(count)
  }
  if (large.length >= places) return Float64Array.from(large).sort()[large.length - places]!
  let above = large.length
  for (let count = histogram.length - 1; count > 0; count--) {
    above += histogram[count]!
    if (above >= places) return count
  }
  return 0
}

/**
 * The most frequent pair first; entries whose count has fallen since they were pushed are put back where they belong.
 */
const pairHeap = (pairs: PairStore, forms: ReadonlyArray<Form>) => {
  let items = new Int32Array(4096)
  let keys = new Float64Array(4096)
  let size = 0
  const texts: Array<string | undefined> = []
  /** Count first, then fewer characters: exact for counts below 2⁴³. */
  const keyOf = (pair: number): number => pairs.count[pair]! * 1024 - pairs.length[pair]!
  const textOf = (pair: number): string =>
    texts[pair] ??= forms[pairs.left[pair]!]!.text + forms[pairs.right[pair]!]!.text
  const isBefore = (key: number, pair: number, otherKey: number, other: number): boolean =>
    key > otherKey || (key === otherKey && precedes(textOf(pair), textOf(other)))
  const push = (pair: number): void => {
    if (size === items.length) {
      items = grown(new Int32Array(2 * size), items)
      keys = grown(new Float64Array(2 * size), keys)
    }
    const key = keyOf(pair)
    let at = size++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!isBefore(key, pair, keys[parent]!, items[parent]!)) break
      keys[at] = keys[parent]!
      items[at] = items[parent]!
      at = parent
    }
    keys[at] = key
    items[at] = pair
  }
  const sink = (key: number, pair: number): void => {
    let at = 0
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && isBefore(keys[child + 1]!, items[child + 1]!, keys[child]!, items[child]!)) child++
      if (!isBefore(keys[child]!, items[child]!, key, pair)) break
      keys[at] = keys[child]!
      items[at] = items[child]!
      at = child
    }
    keys[at] = key
    items[at] = pair
  }
  const pop = (): number => {
    while (size > 0) {
      const pair = items[0]!
      const key = keyOf(pair)
      if (key === keys[0]) {
        size--
        if (size > 0) sink(keys[size]!, items[size]!)
        return pair
      }
      sink(key, pair)
    }
    return -1
  }
  return { push, pop }
}

/**
 * The order of UTF-8 bytes, which is that of code points; in UTF-16, surrogates come before U+E000 to U+FFFF instead.
 */
const precedes = (a: string, b: string): boolean => {
  const end = Math.min(a.length, b.length)
  for (let i = 0; i < end; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x !== y) return inOrder(x) < inOrder(y)
  }
  return a.length < b.length
}

const inOrder = (unit: number): number => unit < 0xd800 ? unit : unit < 0xe000 ? unit + 0x2000 : unit - 0x800

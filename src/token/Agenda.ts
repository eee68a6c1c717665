/**
 * Which pair is merged next: (rank, place) entries, smallest rank first, leftmost place on ties.
 *
 *     pop = min over (rank, place), lexicographically
 *
 * Most entries of one rank arrive from left to right, so each rank has a queue of its own, and a heap holds the ranks
 * that have one: far fewer than places. An entry that arrives to the left of its queue's end goes to a heap of
 * stragglers. An entry in order takes constant time, any other logarithmic.
 *
 * From     the agenda of google/sentencepiece, `src/bpe_model.cc`, which is one heap of all pairs.
 * Checked  test/token/Agenda.test.ts (a sorted list), test/token/BytePair.test.ts.
 *
 * @module
 */
import { grown } from "./GrowingArray.ts"

/** Holds entries; {@link Agenda.pop} sets `rank` and `place`. Empty again once drained. */
export interface Agenda {
  rank: number
  place: number
  readonly push: (rank: number, place: number) => void
  /** Takes the smallest entry; false if there is none. */
  readonly pop: () => boolean
}

/** A straggler is rank · 2³¹ + place in a double, exact for ranks below 2²². */
const rankStep = 2 ** 31

/** An agenda for ranks from 0 to `rankCount` − 1. */
export const make = (rankCount: number): Agenda => {
  const head = new Int32Array(rankCount).fill(-1)
  const tail = new Int32Array(rankCount)
  const ranks = minimumHeap()
  const stragglers = minimumHeap()
  let places = new Int32Array(256)
  let next = new Int32Array(256)
  let used = 0

  const push = (rank: number, place: number): void => {
    const isFirst = head[rank]! < 0
    if (!isFirst && places[tail[rank]!]! > place) return stragglers.push(rank * rankStep + place)
    if (used === places.length) {
      places = grown(new Int32Array(2 * used), places)
      next = grown(new Int32Array(2 * used), next)
    }
    places[used] = place
    next[used] = -1
    if (isFirst) {
      head[rank] = used
      ranks.push(rank)
    } else next[tail[rank]!] = used
    tail[rank] = used++
  }

  const pop = (): boolean => {
    const rank = ranks.top()
    const straggler = stragglers.top()
    if (rank < 0 && straggler < 0) {
      used = 0
      return false
    }
    const first = rank < 0 ? -1 : head[rank]!
    if (rank < 0 || (straggler >= 0 && straggler < rank * rankStep + places[first]!)) {
      agenda.rank = Math.floor(straggler / rankStep)
      agenda.place = straggler - agenda.rank * rankStep
      stragglers.pop()
      return true
    }
    agenda.rank = rank
    agenda.place = places[first]!
    head[rank] = next[first]!
    if (head[rank]! < 0) ranks.pop()
    return true
  }
  const agenda = { rank: 0, place: 0, push, pop }
  return agenda
}

/** A binary heap of numbers that are 0 or more, smallest first; `top` is −1 when it is empty. */
const minimumHeap = () => {
  let items = new Float64Array(64)
  let count = 0
  const push = (item: number): void => {
    if (count === items.length) items = grown(new Float64Array(2 * count), items)
    let at = count++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (items[parent]! <= item) break
      items[at] = items[parent]!
      at = parent
    }
    items[at] = item
  }
  const pop = (): void => {
    const item = items[--count]!
    let at = 0
    for (let child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && items[child + 1]! < items[child]!) child++
      if (items[child]! >= item) break
      items[at] = items[child]!
      at = child
    }
    items[at] = item
  }
  return { push, pop, top: () => count === 0 ? -1 : items[0]! }
}

/**
 * The thread that `EncodingWorkers` starts: it compiles a vocabulary once, then answers texts with ids until it is
 * ended. It loads what encoding needs and nothing else, for that decides how soon it begins.
 *
 * Checked  test/token/EncodingWorkers.test.ts.
 *
 * @module
 */
import * as Result from "effect/Result"
import { parentPort, workerData } from "node:worker_threads"
import * as BytePair from "./BytePair.ts"
import * as Normalizer from "./Normalizer.ts"
import type { PieceTable } from "./PieceTable.ts"
import type { NormalizerSpecification } from "./SentencePiece.ts"
import * as Vocabulary from "./Vocabulary.ts"

/** What the thread is given at its start: what of a model decides how text is encoded. */
export interface Setting {
  readonly table: PieceTable
  readonly normalizer: NormalizerSpecification
  readonly treatWhitespaceAsSuffix: boolean
}

/** Texts to encode. */
export interface Job {
  readonly job: number
  readonly texts: ReadonlyArray<string>
}

/** The ids of all texts of a job, one after another, and where those of each text end. */
export interface Answer {
  readonly job: number
  readonly ids: Int32Array<ArrayBuffer>
  readonly ends: Int32Array<ArrayBuffer>
}

const { normalizer, table, treatWhitespaceAsSuffix }: Setting = workerData
const normalize = Result.getOrThrow(Normalizer.make(normalizer, treatWhitespaceAsSuffix, table))
const pairs = BytePair.make(Vocabulary.make(table, normalizer.escapeWhitespaces))

parentPort?.on("message", ({ job, texts }: Job) => {
  const parts = texts.map((text) => pairs.encode(normalize.text(text)))
  const ends = new Int32Array(parts.length)
  const ids = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  parts.forEach((part, i) => {
    ids.set(part, at)
    at += part.length
    ends[i] = at
  })
  const answer: Answer = { job, ids, ends }
  parentPort?.postMessage(answer, [ids.buffer, ends.buffer])
})

/**
 * The thread that `EncodingWorkers` starts: it reads a model once, then answers texts with ids until it is ended.
 *
 * Checked  test/token/EncodingWorkers.test.ts.
 *
 * @module
 */
import * as Result from "effect/Result"
import { parentPort, workerData } from "node:worker_threads"
import * as SentencePiece from "./SentencePiece.ts"
import * as Tokenizer from "./Tokenizer.ts"

/** What the thread is given at its start: a `.model` file. */
export interface Setting {
  readonly model: Uint8Array
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

const { model }: Setting = workerData
const { encode } = Result.getOrThrow(Result.flatMap(SentencePiece.parse(model), Tokenizer.fromModel))

parentPort?.on("message", ({ job, texts }: Job) => {
  const parts = texts.map(encode)
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

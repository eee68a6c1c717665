/**
 * Encoding on all cores: many texts, cut among worker threads, ids in the order of the texts.
 *
 *     encodeMany(texts) = texts.map(encode)        for every number of workers
 *
 * From     Node's worker threads: texts are copied there, ids are moved back.
 * Checked  test/token/EncodingWorkers.test.ts (the ids of one thread, in order; a worker that cannot start or dies is
 *          an error; the threads end with their scope).
 * Departs  in speed only. A worker takes about 0.15 s of processor time to start, so small work stays in this thread.
 *          Workers run built code: where this file runs as TypeScript, name the built `EncodingWorker.js`.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Worker } from "node:worker_threads"
import type { Answer, Job, Setting } from "./EncodingWorker.ts"
import type * as SentencePiece from "./SentencePiece.ts"
import * as Tokenizer from "./Tokenizer.ts"

/** A worker thread could not start, or ended before its work was done. */
export class EncodingWorkerError extends Schema.TaggedError<EncodingWorkerError>()("EncodingWorkerError", {
  entry: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `encoding worker ${this.entry}: ${this.reason}\n  ` +
      "workers run built JavaScript: run from the built package, or name its token/EncodingWorker.js; " +
      "encoding in one thread, Codec.encode, needs no worker"
  }
}

/** Encodes many texts; the answer has their ids, in their order. */
export type EncodeMany = (
  texts: ReadonlyArray<string>
) => Effect.Effect<ReadonlyArray<Int32Array>, EncodingWorkerError>

/** How many workers, 1 or more, and their code: beside this file, unless named. */
export interface Options {
  readonly workerCount: number
  readonly entry?: URL
}

/** Below this many characters of text in all, starting workers takes longer than they save. */
export const leastCharacters = 50_000_000

/** Texts sent to a worker at once have about this many characters: a few milliseconds of work. */
const charactersAtOnce = 1 << 18

/** A worker, and who waits for which answer. */
interface Thread {
  readonly run: (texts: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Int32Array>, EncodingWorkerError>
}

/**
 * Starts workers that encode by `Tokenizer.fromModel`, and ends them with the scope. The function may be called many
 * times at once; its texts go to whichever worker is free, and each worker has the next texts before it is done.
 *
 * A count of less than 1, with which nothing would ever be encoded, is a RangeError.
 */
export const make = Effect.fnUntraced(function*(
  model: SentencePiece.Model, { entry = new URL("./EncodingWorker.js", import.meta.url), workerCount }: Options
): Effect.fn.Return<EncodeMany, EncodingWorkerError | Tokenizer.UnsupportedModelError, Scope.Scope> {
  if (!(Number.isSafeInteger(workerCount) && workerCount >= 1)) {
    throw new RangeError(`EncodingWorkers: workerCount must be a whole number of at least 1, got ${workerCount}`)
  }
  yield* Effect.fromResult(Tokenizer.fromModel(model)) // refused here, by its own error, not in the workers
  const free = yield* Queue.unbounded<Thread>()
  const { normalizer, table, trainer: { treatWhitespaceAsSuffix } } = model
  for (let i = 0; i < workerCount; i++) {
    const thread = yield* start(entry, { normalizer, table, treatWhitespaceAsSuffix })
    // Twice: while one job is worked on, the next is on its way.
    yield* Queue.offerAll(free, [thread, thread])
  }
  const encode = (texts: ReadonlyArray<string>) =>
    Effect.acquireUseRelease(Queue.take(free), (thread) => thread.run(texts), (thread) => Queue.offer(free, thread))
  return (texts) =>
    Effect.forEach(portions(texts), encode, { concurrency: 2 * workerCount }).pipe(Effect.map((parts) => parts.flat()))
})

/** Encodes texts on `workerCount` threads, or in this one where there is too little text for that to pay. */
export const encodeTexts = (
  model: SentencePiece.Model, texts: ReadonlyArray<string>, options: Options
): Effect.Effect<ReadonlyArray<Int32Array>, EncodingWorkerError | Tokenizer.UnsupportedModelError> => {
  const isSmall = texts.reduce((sum, text) => sum + text.length, 0) < leastCharacters
  return isSmall || options.workerCount < 2
    ? Effect.fromResult(Result.map(Tokenizer.fromModel(model), ({ encode }) => texts.map(encode)))
    : Effect.scoped(Effect.flatMap(make(model, options), (encodeMany) => encodeMany(texts)))
}

/** The texts in runs of about {@link charactersAtOnce} characters. */
const portions = (texts: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => {
  const found: Array<Array<string>> = []
  let room = 0
  for (const text of texts) {
    if (room <= 0) {
      found.push([])
      room = charactersAtOnce
    }
    found.at(-1)!.push(text)
    room -= text.length
  }
  return found
}

const start = (entry: URL, setting: Setting): Effect.Effect<Thread, EncodingWorkerError, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      // Node throws at once for an address that is no file.
      Effect.try({
        try: () => new Worker(entry, { workerData: setting }),
        catch: (error) => new EncodingWorkerError({ entry: entry.href, reason: String(error) })
      }),
      (worker) => Effect.promise(() => worker.terminate())
    ),
    (worker) => {
      const waiting = new Map<number, (answer: Result.Result<Answer, EncodingWorkerError>) => void>()
      let jobs = 0
      let ended: EncodingWorkerError | undefined
      const end = (reason: string): void => {
        ended ??= new EncodingWorkerError({ entry: entry.href, reason })
        for (const answer of waiting.values()) answer(Result.fail(ended))
        waiting.clear()
      }
      worker.on("message", (answer: Answer) => {
        waiting.get(answer.job)?.(Result.succeed(answer))
        waiting.delete(answer.job)
      })
      worker.on("error", (error) => end(error.message))
      worker.on("exit", (code) => end(`it ended with code ${code}`))
      // A worker that waits for work does not keep the process alive; one that works does.
      worker.unref()
      const run: Thread["run"] = (texts) =>
        Effect.callback<Answer, EncodingWorkerError>((resume) => {
          if (ended !== undefined) return resume(Effect.fail(ended))
          const job: Job = { job: jobs++, texts }
          worker.ref()
          waiting.set(job.job, (answer) => {
            if (waiting.size <= 1) worker.unref()
            resume(Effect.fromResult(answer))
          })
          // oxlint-disable-next-line unicorn/require-post-message-target-origin -- because a thread is no window
          worker.postMessage(job)
          return Effect.sync(() => waiting.delete(job.job))
        }).pipe(Effect.map(({ ends, ids }) =>
          Array.from(ends, (end, i) => ids.subarray(i === 0 ? 0 : ends[i - 1]!, end))
        ))
      return { run }
    }
  )

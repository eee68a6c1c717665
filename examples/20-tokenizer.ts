/**
 * A tokenizer: train it on stories, encode, decode, save it as a SentencePiece `.model` and load that again.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Stories, Tokenizer, Trainer } from "cria"
import { Effect, FileSystem, Path, Stream } from "effect"

const main = Effect.gen(function*() {
  // Llama's own options, but for a small vocabulary: 3 control pieces, 256 bytes, the rest learned.
  const stories = Stories.documents({ seed: 1, train: 2000, validation: 0 }).pipe(Stream.map(({ text }) => text))
  const { model, statistics } = yield* Trainer.train(stories, Trainer.llama(512))
  console.log(`${statistics.words} words, ${statistics.distinctWords} different;`,
    `${statistics.characters} characters, ${statistics.merges} merges`)

  const tokenizer = yield* Effect.fromResult(Tokenizer.fromModel(model))
  const pieces = (text: string) => [...tokenizer.encode(text)].map(tokenizer.piece).join(" ")
  console.log(pieces("Once upon a time there was a hen with 12 eggs."))

  // Digits stand alone, so that numbers are read digit by digit; what was never seen falls back to bytes.
  console.log(pieces("3141 ¿? 🦙"))
  console.log(tokenizer.decode(tokenizer.encode("3141 ¿? 🦙")))

  // The text of a control piece is text: only `encodeSegments` marks the beginning and the end of a sequence.
  console.log(pieces("<s>hen</s>"))
  console.log([...tokenizer.encodeSegments([Tokenizer.bos, "hen", Tokenizer.eos])].map(tokenizer.piece).join(" "))

  // Ids come back as text one by one; the four bytes of the llama are held back until they are a character.
  const { push, end } = tokenizer.streamDecoder()
  console.log([...tokenizer.encode("a 🦙")].map(push), JSON.stringify(end()))

  // The file is SentencePiece's own form: its library, llama.cpp and others read it.
  const files = yield* FileSystem.FileSystem
  const file = (yield* Path.Path).join(yield* files.makeTempDirectoryScoped(), "stories.model")
  yield* Tokenizer.saveModel(file, model)
  const again = yield* Effect.provide(Tokenizer.Tokenizer, Tokenizer.layerSentencePiece(file))
  const text = Stories.story(1, "validation", 0)
  const ids = again.encode(text)
  console.log(`${text.length} characters, ${ids.length} ids, the same: ${ids.join() === tokenizer.encode(text).join()}`)
  console.log(`and back again: ${again.decode(ids) === text}`)
})

await Effect.runPromise(main.pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

/* Prints:
271061 words, 750 different; 70 characters, 183 merges
▁On ce ▁u p on ▁a ▁t i me ▁there ▁was ▁a ▁he n ▁w ith ▁ 1 2 ▁e g g s .
▁ 3 1 4 1 ▁ <0xC2> <0xBF> ? ▁ <0xF0> <0x9F> <0xA6> <0x99>
3141 ¿? 🦙
▁ <0x3C> s <0x3E> hen <0x3C> <0x2F> s <0x3E>
<s> ▁he n </s>
[ 'a', ' ', '', '', '', '🦙' ] ""
478 characters, 229 ids, the same: true
and back again: true
*/

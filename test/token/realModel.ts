import { Result } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as SentencePiece from "../../src/token/SentencePiece.ts"
import * as Tokenizer from "../../src/token/Tokenizer.ts"

/**
 * The folder of real files that are not part of this project; tests that need it are skipped, by name, where it is not
 * set.
 */
export const dataFolder: string | undefined = process.env["CRIA_TEST_DATA"]
export const hasData: boolean = dataFolder !== undefined

export const readData = (name: string): Uint8Array => new Uint8Array(Fs.readFileSync(Path.join(dataFolder ?? "", name)))
/** The text of a file, byte-order mark included: it is a character to the tokenizer. */
export const readText = (name: string): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(readData(name))

let model: SentencePiece.Model | undefined
let codec: Tokenizer.Codec | undefined

/** The real Llama 2 vocabulary, parsed once. */
export const llamaModel = (): SentencePiece.Model => model ??= Result.getOrThrow(
  SentencePiece.parse(readData("tokenizer.model"))
)
export const llama = (): Tokenizer.Codec => codec ??= Result.getOrThrow(Tokenizer.fromModel(llamaModel()))

/**
 * `cria tokenizer`: train, use, look into and compare tokenizers.
 *
 * Checked  test/cli/TokenizerCommand.test.ts.
 *
 * @module
 */
import * as Command from "effect/cli/Command"
import * as CompareCommand from "./tokenizer/CompareCommand.ts"
import * as EncodeCommand from "./tokenizer/EncodeCommand.ts"
import * as InspectCommand from "./tokenizer/InspectCommand.ts"
import * as TrainCommand from "./tokenizer/TrainCommand.ts"

/** The command. */
export const command = Command.make("tokenizer").pipe(
  Command.withShortDescription("Train, use, look into and compare tokenizers"),
  Command.withDescription(
    "Tokenizers in SentencePiece's manner. A tokenizer is a .model (SentencePiece), .json (Hugging Face) or .bin " +
      "(llama2.c) file, or a folder that holds one."
  ),
  Command.withSubcommands([
    TrainCommand.command, EncodeCommand.encode, EncodeCommand.decode, InspectCommand.command, CompareCommand.command
  ])
)

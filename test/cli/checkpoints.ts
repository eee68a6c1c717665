/** Disks that hold a tiny model of Hugging Face, for the commands that take checkpoints. */
import { Effect } from "effect"
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as Tokenizer from "../../src/token/Tokenizer.ts"
import * as MemoryDisk from "../store/MemoryDisk.ts"
import { cria, withFiles } from "./Cria.ts"

const folder = fileURLToPath(new URL("../parity/checkpoint/gqa-f32-tied", import.meta.url))

/** A disk with the model in /hf, and a tokenizer of another size. */
export const withModel = Effect.gen(function*() {
  const disk = MemoryDisk.make()
  const names = ["config.json", "model.safetensors"]
  yield* withFiles(disk, {
    ...Object.fromEntries(names.map((name) => [`/hf/${name}`, new Uint8Array(Fs.readFileSync(`${folder}/${name}`))])),
    "/bytes.model": Tokenizer.bytesModel.bytes
  })
  return disk
})

/** Runs a command, which fails, and gives what it says. */
export const told = (disk: MemoryDisk.MemoryDisk, ...args: ReadonlyArray<string>) =>
  Effect.map(cria(disk, args), ({ errors }) => errors)

/** Runs a command, which succeeds, and gives its output. */
export const printed = (disk: MemoryDisk.MemoryDisk, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(cria(disk, args), ({ errors, exit, output }) =>
    exit._tag === "Success" ? Effect.succeed(output) : Effect.die(new Error(errors)))

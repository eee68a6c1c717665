/** Disks that hold a tiny model of Hugging Face, for the commands that take checkpoints. */
import { Effect, FileSystem, Layer } from "effect"
import * as NodePath from "@effect/platform-node/NodePath"
import * as Fs from "node:fs"
import { fileURLToPath } from "node:url"
import * as Safetensors from "../../src/format/Safetensors.ts"
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

/**
 * Copies a folder of Hugging Face with more tokens than its tokenizer has, which would be the likeliest of all; the
 * first number of its tables may be another.
 */
export const filledUp = (
  disk: MemoryDisk.MemoryDisk, from: string, to: string, vocabSize: number, first?: number
) =>
  Effect.gen(function*() {
    const { fileSystem } = disk
    yield* fileSystem.makeDirectory(to)
    for (const name of yield* fileSystem.readDirectory(from)) {
      yield* withFiles(disk, { [`${to}/${name}`]: yield* fileSystem.readFile(`${from}/${name}`) })
    }
    const file = `${to}/model.safetensors`
    const { metadata, tensors } = yield* Safetensors.read(file)
    yield* fileSystem.remove(file)
    yield* Safetensors.write(file, tensors.map((tensor) => {
      const { bytes, name, shape: [rows = 0, columns = 0] } = tensor
      if (!/embed_tokens|lm_head/.test(name)) return tensor
      const filling = Array.from({ length: vocabSize - rows }, (_, row) => {
        const sign = row % 2 === 0 ? 1 : -1 // of two rows, the scores of one are above zero
        return Array.from({ length: columns }, () => 9 * sign)
      })
      const wide = new Uint8Array(Float32Array.from(filling.flat()).buffer)
      const whole = Uint8Array.of(...bytes, ...wide)
      if (first !== undefined) new DataView(whole.buffer).setFloat32(0, first, true)
      return { ...tensor, shape: [vocabSize, columns], bytes: whole }
    }), metadata)
    const config = yield* fileSystem.readFileString(`${to}/config.json`)
    yield* withFiles(disk, {
      [`${to}/config.json`]: config.replace(/"vocab_size": \d+/, `"vocab_size": ${vocabSize}`)
    })
  }).pipe(Effect.provide(Layer.merge(NodePath.layer, Layer.succeed(FileSystem.FileSystem, disk.fileSystem))))

/** Runs a command, which fails, and gives what it says. */
export const told = (disk: MemoryDisk.MemoryDisk, ...args: ReadonlyArray<string>) =>
  Effect.map(cria(disk, args), ({ errors }) => errors)

/** Runs a command, which succeeds, and gives its output. */
export const printed = (disk: MemoryDisk.MemoryDisk, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(cria(disk, args), ({ errors, exit, output }) =>
    exit._tag === "Success" ? Effect.succeed(output) : Effect.die(new Error(errors)))

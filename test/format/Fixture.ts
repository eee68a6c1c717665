/** Files that other programs wrote, and what their tensors are as f32: see test/parity/make/formats.py. */
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as SafetensorsFile from "../../src/format/SafetensorsFile.ts"
import type * as TensorFile from "../../src/format/TensorFile.ts"
import * as Disk from "./Disk.ts"

const folder = new URL("../parity/formats/", import.meta.url)

export const bytes = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(Fs.readFileSync(new URL(name, folder)))

/** All files of a folder of fixtures, by their paths on the disk of a test. */
export const files = (name: string): Record<string, Uint8Array> =>
  Object.fromEntries(
    Fs.readdirSync(new URL(name, folder)).map((file) => [`/${name}/${file}`, bytes(`${name}/${file}`)])
  )

/** The tensor of `expected.safetensors` with this name. */
export const expected = (name: string): Promise<Float32Array<ArrayBuffer>> =>
  Disk.run(
    { "/e": bytes("expected.safetensors") },
    Effect.flatMap(SafetensorsFile.open("/e"), ({ read }) => read(name))
  )

/** The bytes of a tensor of `expected.safetensors`, whatever its type. */
export const expectedBytes = (name: string): Promise<Uint8Array<ArrayBuffer>> =>
  Disk.run(
    { "/e": bytes("expected.safetensors") },
    Effect.flatMap(SafetensorsFile.open("/e"), ({ readBytes }) => readBytes(name))
  )

/** The names of `expected.safetensors` that begin so, without their beginning. */
export const expectedNames = (start: string): Promise<ReadonlyArray<string>> =>
  Disk.run({ "/e": bytes("expected.safetensors") }, Effect.map(SafetensorsFile.open("/e"), ({ entries }) =>
    [...entries.keys()].filter((name) => name.startsWith(start)).map((name) => name.slice(start.length))))

/** Each tensor of an open file as it stands, to be written again. */
export const sources = (file: TensorFile.TensorFile): Effect.Effect<
  ReadonlyArray<TensorFile.Source>,
  TensorFile.Failure
> =>
  Effect.forEach(file.entries.values(), ({ name, sizes, type }) =>
    Effect.map(file.readBytes(name), (bytes) => ({ name, type, sizes, bytes })))

import { assert, describe, it } from "@effect/vitest"
import * as Gguf from "../../src/format/Gguf.ts"
import * as GgufHeader from "../../src/format/GgufHeader.ts"
import * as Disk from "./Disk.ts"

/** Keys that are judged when they have been read: the empty one, and the one that everything after depends on. */
const metadata = (alignment: number): Gguf.Metadata => new Map<string, Gguf.Value>([
  ["", { type: "string", value: "é" }], ["some.numbers", { type: "numbers", values: Uint16Array.of(1, 2, 3) }],
  ["general.alignment", { type: "u32", value: alignment }], ["is.whole", { type: "bool", value: true }],
  ["last", { type: "strings", values: ["a", ""] }]
])

describe("GgufHeader", () => {
  it("wants more of a header that is not all there yet, and finds no fault with what is", async () => {
    for (const alignment of [8, 32, 64]) {
      const tensors = [{ name: "", type: "F32" as const, sizes: [3], bytes: new Uint8Array(12) }]
      const file = (await Disk.written(Gguf.write("/a", metadata(alignment), tensors))).get("/a")!
      let length = 0
      for (; GgufHeader.parse(file.subarray(0, length), file.length) === "short"; length++);
      assert.isAbove(length, 100)
      const header = GgufHeader.parse(file.subarray(0, length), file.length)
      assert.deepStrictEqual(header, GgufHeader.parse(file, file.length))
      assert.notProperty(header, "kind", JSON.stringify(header))
    }
  })
})

import { assert, describe, it } from "@effect/vitest"
import * as Weights from "../../src/cli/Weights.ts"
import * as Config from "../../src/llama/Config.ts"

describe("weights in few bits", () => {
  it("are said to be slow where they are too large for copies", () => {
    const { "7B": large, "24M": small } = Config.presets
    assert.strictEqual(
      Weights.warning(large, "4-bit"),
      "4-bit weights of 4.7 GB are not built into the programs, each of which would take a copy: ONNX Runtime " +
        "unpacks them anew for every token, which takes long"
    )
    assert.match(Weights.warning(large, "8-bit") ?? "", /^8-bit weights of 8\.0 GB /)
    assert.isUndefined(Weights.warning(large, "f32"))
    for (const width of Weights.widths) assert.isUndefined(Weights.warning(small, width))
  })
})

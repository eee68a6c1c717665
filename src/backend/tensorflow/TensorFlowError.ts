/**
 * The ways in which an engine of the TensorFlow.js family can refuse to start, each with what to do about it.
 *
 * Checked  test/backend/tensorflow/Engine.test.ts (messages as text).
 *
 * @module
 */
import * as Schema from "effect/Schema"

const lessons = {
  MissingPackage: {
    rule: "its packages must be installed",
    remedy: () => "They are optional peers of Cria: install them beside it, all of one version."
  },
  MissingLibrary: {
    rule: "its native library must load",
    remedy: (engine: string) => "The install script of the package downloads libtensorflow and its addon, and does not"
      + " run where npm has `ignore-scripts=true`: run `npm rebuild @tensorflow/tfjs-" + engine
      + " --ignore-scripts=false`, or build the addon against a library that is there (docs/guide/backends.md says how)"
      + " and lies in the package's deps/lib. The engine wasm needs no native library."
  },
  NoDevice: {
    rule: "there must be a device that it can use",
    remedy: (engine: string) => engine === "node-gpu"
      ? "It needs an NVIDIA card with its driver, CUDA 11.2 and cuDNN 8.1, of which TensorFlow tells on stderr what it"
        + " did not find. The engine node is the same library on the processor."
      : "WebGPU needs a Vulkan driver, Metal or Direct3D 12. On a machine without a GPU, SwiftShader will do: install"
        + " it and name its ICD file in the variable VK_DRIVER_FILES."
  },
  NotStarted: {
    rule: "it must start",
    remedy: () => "What it said is above. Usual causes: packages of different versions, two copies of"
      + " @tensorflow/tfjs-core, a Node version that the package was never built for."
  }
} as const

/** Why an engine did not start; each reason has its rule and its remedy in the message. */
export type Reason = keyof typeof lessons

/** An engine of the TensorFlow.js family did not start: which one, why, and what to install. */
export class TensorFlowError extends Schema.TaggedError<TensorFlowError>()("TensorFlowError", {
  reason: Schema.Literals(["MissingPackage", "MissingLibrary", "NoDevice", "NotStarted"]),
  engine: Schema.String,
  /** A command that installs its packages. */
  install: Schema.String,
  values: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const { remedy, rule } = lessons[this.reason]
    return [
      `TensorFlow.js, engine ${this.engine}: ${rule}`, ...this.values, remedy(this.engine),
      ...(this.reason === "MissingPackage" ? [this.install] : [])
    ].join("\n  ")
  }
}

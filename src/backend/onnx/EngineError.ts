/**
 * The ways in which ONNX Runtime can refuse, each with the rule that was broken and what to do about it.
 *
 * Checked  test/backend/onnx/Engine.test.ts, test/backend/onnx/CLibrary.test.ts, test/backend/onnx/Buffer.test.ts
 *          (messages as text).
 *
 * @module
 */
import * as Schema from "effect/Schema"

const lessons = {
  MissingLibrary: {
    rule: "its native library must load",
    remedy: "Install it with `npm install onnxruntime-node@1.30.0 koffi` (ignore-scripts=true in .npmrc skips a CUDA"
      + " download that is not needed), or name a libonnxruntime of version 1.23 or later in the option `library`."
  },
  StackTooSmall: {
    rule: "native code needs stacks of 8 MiB, set before koffi loads its first library",
    remedy: "Something else in this process used koffi first: provide this layer before it, or have it call"
      + " koffi.config({ sync_stack_size: 8 << 20, async_stack_size: 8 << 20 })."
  },
  ThreadsPinned: {
    rule: "a process has one thread pool, made by the first layer and kept until the process ends",
    remedy: "Ask for the same everywhere, leave the options out to share what is there, or start another process."
  },
  MissingProvider: {
    rule: "a provider must be built into the library, and find a device with its driver",
    remedy: "docs/guide/backends.md says what each needs."
  },
  BadOption: {
    rule: "`threads` must be a whole number of at least 1",
    remedy: "Leave it out to use the cores of this machine."
  },
  BadModel: {
    rule: "the model must load",
    remedy: "The first line names what was rejected. Usual causes: an operator newer than the opset, types or sizes"
      + " that do not fit, damaged bytes. Weights beyond 2 GiB must be inputs, not initializers."
  },
  GraphTooLarge: {
    rule: "a graph takes less than 2 GiB of constants",
    remedy: "Leave the largest of them out of the constants, and bind them."
  },
  BadBuffer: {
    rule: "every buffer must be what the model declares",
    remedy: "Make buffers with `allocate` or `view`, from the same sizes the model was written for."
  },
  OutOfMemory: {
    rule: "memory for a buffer must be there",
    remedy: "Use smaller batches or fewer sessions; one buffer holds at most 4 GiB on Node 20."
  },
  RunFailed: {
    rule: "an operator failed while running",
    remedy: "The first line names it. Usual cause: an index out of range, or sizes only known at run time."
  },
  Closed: {
    rule: "a session must be open while it runs",
    remedy: "Its Scope has ended: keep the run inside the Scope that created the session."
  }
} as const

/** What a provider needs, by what the values say of it. */
const needs: Readonly<Record<string, string>> = {
  "provider: WebGPU": "WebGPU needs a driver: Vulkan on Linux (on a machine without a card SwiftShader will do, whose"
    + " .json the variable VK_DRIVER_FILES names), Metal on macOS, Direct3D 12 on Windows.",
  "provider: CUDA": "CUDA needs Linux x64, a card, CUDA 12, cuDNN 9, and the provider's libraries: fetch them with"
    + " `npm rebuild onnxruntime-node --ignore-scripts=false`, or in a script name a library that has them"
    + " beside it, `layerCuda({ library })`."
}

/** Why the engine refused; each reason has its rule and its remedy in the message. */
export type Reason = keyof typeof lessons

/** Fails an engine operation: the reason, the operation, and every value that broke the rule. */
export class EngineError extends Schema.TaggedError<EngineError>()("EngineError", {
  reason: Schema.Literals([
    "MissingLibrary", "StackTooSmall", "ThreadsPinned", "MissingProvider", "BadOption", "BadModel", "GraphTooLarge",
    "BadBuffer", "OutOfMemory", "RunFailed", "Closed"
  ]),
  operation: Schema.String,
  values: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const { remedy, rule } = lessons[this.reason]
    const needed = this.values.flatMap((value) => needs[value] ?? [])
    return [`ONNX Runtime, in ${this.operation}: ${rule}`, ...this.values, ...needed, remedy].join("\n  ")
  }
}

/** An `EngineError` from whatever native code threw. */
export const failure = (reason: Reason, operation: string, ...values: ReadonlyArray<unknown>): EngineError =>
  new EngineError({
    reason,
    operation,
    values: values.map((value) => value instanceof Error ? essence(value.message) : String(value))
  })

/** What native code says, without the line of its source and the condition there; of a missing module, its name. */
const essence = (message: string): string =>
  message.replace(/^\S+\.(cc|h):\d+ .*? was false\. (?=\S)/s, "").replace(/\nRequire stack:.*$/s, "").trim()

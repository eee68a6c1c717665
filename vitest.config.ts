/**
 * The tests in four cost classes, by folder: `npm test -- --project pure` is the inner loop, `npm test` is all of them.
 * See test/README.md.
 */
import * as Os from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { Skipped } from "./test/Skipped.ts"

const source = (path: string): string => fileURLToPath(new URL(`./src/${path}`, import.meta.url))
const folders = (...names: ReadonlyArray<string>): Array<string> => names.map((name) => `test/${name}/**/*.test.ts`)

const story = folders("story", "soak")
const backend = folders("backend/onnx", "backend/tensorflow", "recipe", "cli", "documentation")
const reference = folders("backend", "law", "llama", "loss", "optimize", "generate", "evaluate", "parity")
/** These end what hangs. They measure nothing: a machine may be many times slower than the one this was written on. */
const minutes = 60_000

export default defineConfig({
  resolve: {
    alias: [
      { find: /^cria$/, replacement: source("index.ts") },
      { find: /^cria\/backend\/onnx$/, replacement: source("backend/onnx/index.ts") },
      { find: /^cria\/backend\/tensorflow$/, replacement: source("backend/tensorflow/index.ts") },
      { find: /^cria\/testing$/, replacement: source("testing/index.ts") }
    ]
  },
  test: {
    pool: "forks",
    hookTimeout: 4 * minutes,
    reporters: process.env["CRIA_TEST_REPORT"] === undefined
      ? ["default", new Skipped()]
      : ["default", new Skipped(), ["json", { outputFile: process.env["CRIA_TEST_REPORT"] }]],
    projects: [
      {
        extends: true,
        test: {
          name: "pure",
          include: ["test/**/*.test.ts"],
          exclude: [...reference, ...backend, ...story],
          isolate: false,
          maxWorkers: Os.availableParallelism(),
          testTimeout: 4 * minutes,
          sequence: { groupOrder: 0 }
        }
      },
      {
        extends: true,
        test: {
          name: "reference",
          include: reference,
          exclude: [...backend, ...story],
          isolate: false,
          maxWorkers: Os.availableParallelism(),
          testTimeout: 4 * minutes,
          sequence: { groupOrder: 0 }
        }
      },
      {
        extends: true,
        test: {
          name: "backend", // one file at a time: each has every core to itself
          include: backend,
          exclude: story,
          maxWorkers: 1,
          testTimeout: 10 * minutes,
          sequence: { groupOrder: 1 }
        }
      },
      {
        extends: true,
        test: { name: "story", include: story, maxWorkers: 1, testTimeout: 30 * minutes, sequence: { groupOrder: 2 } }
      }
    ]
  }
})

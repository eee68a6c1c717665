/**
 * A vitest reporter that ends a run with the tests that were skipped, each with its reason: the note given to
 * `context.skip(note)`, else the test's own name, which says why.
 */
import type { Reporter, TestModule } from "vitest/node"

export class Skipped implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const lines = modules.flatMap((module) =>
      [...module.children.allTests("skipped")].map((test) => {
        const result = test.result()
        const note = result.state === "skipped" && result.note !== undefined ? `: ${result.note}` : ""
        return `  ${module.relativeModuleId} > ${test.fullName}${note}`
      })
    )
    if (lines.length > 0) console.log(`\nSkipped, and why:\n${lines.join("\n")}\n`)
  }
}

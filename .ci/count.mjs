// Prints "passed failed skipped" from the JSON report of one vitest run and that run's exit status.
// A test file that could not be loaded counts as one failure, and so does a run that failed with no failed test.
import { readFileSync } from "node:fs"

const [, , path, status] = process.argv
const text = readFileSync(path, "utf8")
if (text === "") {
  console.log("0 1 0") // the build or vitest itself broke before any test was reported
} else {
  const report = JSON.parse(text)
  const passed = report.numPassedTests
  const skipped = report.numPendingTests + report.numTodoTests
  const unloaded = report.testResults.filter((file) =>
    file.status === "failed" && file.assertionResults.every((test) => test.status !== "failed")
  ).length
  let failed = report.numFailedTests + unloaded
  if (failed === 0 && (status !== "0" || passed === 0)) failed = 1
  console.log(`${passed} ${failed} ${skipped}`)
}

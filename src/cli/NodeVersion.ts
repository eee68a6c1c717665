/**
 * Which Node Cria runs on. This imports nothing, so that every Node can read it.
 *
 * Checked  test/cli/NodeVersion.test.ts (the same as in package.json).
 *
 * @module
 */

/** The oldest Node that has all functions that Cria calls: major and minor version. */
export const oldest: readonly [major: number, minor: number] = [20, 20]

/** What is said of a Node that is too old; nothing of others. */
export const refusal = (version: string, path: string): string | undefined => {
  const [major = 0, minor = 0] = version.split(".").map(Number)
  return major > oldest[0] || major === oldest[0] && minor >= oldest[1]
    ? undefined
    : `cria: Node must be ${oldest.join(".")} or later, but ${path} is ${version}\n` +
      "  It lacks functions that Cria calls. Install a newer one: https://nodejs.org has it, and so has nvm."
}

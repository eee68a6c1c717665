import { OptionDefaults } from "typedoc"

/** @type {Partial<import("typedoc").TypeDocOptions>} */
export default {
  entryPoints: ["src/**/*.ts"],
  exclude: ["src/**/index.ts", "src/cli/**"],
  tsconfig: "tsconfig.build.json",
  out: "docs/api",
  name: "Cria",
  readme: "README.md",
  projectDocuments: ["docs/**/*.md", "CONTRIBUTING.md"],
  blockTags: [...OptionDefaults.blockTags, "@stability"],
  excludeInternal: true,
  excludeExternals: true,
  categorizeByGroup: false,
  sort: ["source-order"],
  disableSources: true,
  validation: { invalidLink: true, notExported: false, notDocumented: false },
  treatWarningsAsErrors: true
}

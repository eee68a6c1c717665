/**
 * The rules of the house, as functions from sources to the sentences that say what is wrong; no sentence, no fault.
 *
 * Imports go down the floors, never up, and never sideways except where the table says so.
 */
import ts from "typescript"
import { header, testsNamed } from "../../docs/make/header.mjs"
import { lineOf, type Source, visit } from "./Source.ts"

interface Floor {
  readonly floor: number
  /** Folders of the same floor that may be imported. */
  readonly sideways?: ReadonlyArray<string>
}

export const floors: Readonly<Record<string, Floor>> = {
  tensor: { floor: 1 },
  format: { floor: 1 },
  token: { floor: 1, sideways: ["format", "random"] },
  random: { floor: 1 },
  backend: { floor: 2 },
  store: { floor: 2 },
  llama: { floor: 3 },
  loss: { floor: 3 },
  optimize: { floor: 3 },
  data: { floor: 4 },
  generate: { floor: 5 },
  evaluate: { floor: 5, sideways: ["generate"] },
  recipe: { floor: 6 },
  testing: { floor: 6 },
  cli: { floor: 7 },
  "index.ts": { floor: 8 }
}

/** Rooms that only those named here may enter, whatever their floor. */
const closed: ReadonlyArray<{ readonly room: string; readonly open: ReadonlyArray<string>; readonly why: string }> = [
  { room: "backend/onnx/", open: ["backend/onnx/", "cli/"], why: "only the command line chooses a concrete engine" },
  {
    room: "backend/tensorflow/",
    open: ["backend/tensorflow/", "cli/"],
    why: "only the command line chooses a concrete engine"
  },
  { room: "testing/", open: ["testing/"], why: "it needs fast-check, which users of the library may not have" },
  { room: "cli/", open: ["cli/"], why: "a command is an end, not a part" },
  { room: "index.ts", open: [], why: "sources import the module they need, not the barrel" }
]

/** Packages, and the folders that may import them. */
const packages: ReadonlyArray<{ readonly name: RegExp; readonly open: ReadonlyArray<string>; readonly why: string }> = [
  { name: /^effect\/.+/, open: [""], why: "" },
  { name: /^@effect\/platform-node\/.+/, open: ["cli/"], why: "the platform is chosen at the edge" },
  { name: /^(koffi|onnxruntime-node)(\/|$)/, open: ["backend/onnx/"], why: "only its own backend loads an engine" },
  { name: /^(@tensorflow\/|webgpu$)/, open: ["backend/tensorflow/"], why: "only its own backend loads an engine" },
  { name: /^fast-check$/, open: ["testing/"], why: "it is an optional peer dependency" },
  {
    name: /^\(computed\)$/, open: ["backend/tensorflow/Engine.ts"], why: "what is loaded is named where it is imported"
  },
  { name: /^node:(crypto|zlib)$/, open: ["format/", "data/", "store/"], why: "digests and gzip are for files" },
  { name: /^node:worker_threads$/, open: ["token/EncodingWorker"], why: "threads are started and ended in one place" },
  {
    name: /^node:os$/, open: ["store/Lock.ts", "backend/onnx/", "backend/tensorflow/Engine.ts", "cli/"],
    why: "a lock names its host, engines count cores"
  },
  { name: /^node:util$/, open: ["backend/tensorflow/"], why: "tfjs-node wants a function that Node removed" },
  {
    name: /^node:(module|path|url)$/, open: ["backend/onnx/", "backend/tensorflow/Engine.ts", "cli/"],
    why: "packages are found where they are loaded"
  },
  { name: /^node:/, open: ["backend/onnx/", "cli/"], why: "files, time and processes are services of Effect" }
]

const native = /^((koffi|onnxruntime-node|webgpu)(\/|$)|@tensorflow\/)/

const forbiddenNames = new Set(["utils", "util", "common", "helpers", "helper", "misc", "core", "base", "manager"])

const longest = 600

const folder = (path: string): string => path.split("/")[0]!

const isOpen = (path: string, open: ReadonlyArray<string>): boolean => open.some((prefix) => path.startsWith(prefix))

/** Imports that climb, enter a closed room, name a file that is not there, or a package not meant for this folder. */
export const importFaults = (sources: ReadonlyArray<Source>): ReadonlyArray<string> => {
  const known = new Set(sources.map((source) => source.path))
  return sources.flatMap((source) => {
    const here = floors[folder(source.path)]
    if (here === undefined) {
      return [`src/${source.path}: "${folder(source.path)}" is on no floor; add it to the table or move the file`]
    }
    return source.imports.flatMap(({ line, specifier, target }) => {
      const place = `src/${source.path}:${line} imports ${target === undefined ? specifier : `src/${target}`}`
      if (target === undefined) {
        const rule = packages.find(({ name }) => name.test(specifier))
        if (rule === undefined) return [`${place}: not in the table of packages (name the module: effect/Effect)`]
        return isOpen(source.path, rule.open) ? [] : [`${place}: only ${rule.open.join(", ")} may, because ${rule.why}`]
      }
      if (!known.has(target)) return [`${place}: there is no such file (relative imports end in .ts)`]
      const room = closed.find(({ room }) => target.startsWith(room))
      if (room !== undefined) {
        return isOpen(source.path, room.open) ? [] : [`${place}: ${room.room} is closed, because ${room.why}`]
      }
      const there = floors[folder(target)]
      if (there === undefined || folder(target) === folder(source.path) || there.floor < here.floor) return []
      if (there.floor === here.floor && here.sideways?.includes(folder(target)) === true) return []
      const direction = there.floor > here.floor ? "up" : "sideways"
      return [
        `${place}: that goes ${direction}, from floor ${here.floor} (${folder(source.path)}) to floor ${there.floor} ` +
          `(${folder(target)}); imports go down`
      ]
    })
  })
}

/** The chain of static imports by which an entry loads a native library, if there is one. */
export const nativeFaults = (sources: ReadonlyArray<Source>, entries: ReadonlyArray<string>): ReadonlyArray<string> => {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  return entries.flatMap((entry) => {
    if (!byPath.has(entry)) return [`src/${entry} is not there`]
    const from = new Map<string, string | undefined>([[entry, undefined]])
    const chain = (path: string): string => {
      const before = from.get(path)
      return before === undefined ? path : `${chain(before)} → ${path}`
    }
    for (const path of from.keys()) {
      for (const edge of byPath.get(path)?.imports ?? []) {
        if (edge.kind !== "static") continue
        if (native.test(edge.specifier)) {
          return [`importing src/${entry} loads ${edge.specifier}: ${chain(path)} → ${edge.specifier}`]
        }
        if (edge.target !== undefined && !from.has(edge.target)) from.set(edge.target, path)
      }
    }
    return []
  })
}

/** Folders are lower-case nouns, files PascalCase nouns, and neither is a bin for what has no name. */
export const nameFaults = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources.flatMap(({ path }) => {
    const parts = path.replace(/\.ts$/, "").split("/")
    const file = parts.at(-1)!
    const faults = parts.filter((part) => forbiddenNames.has(part.toLowerCase()))
      .map((part) => `src/${path}: "${part}" says nothing; name what is in it`)
    const misnamed = parts.slice(0, -1).filter((part) => !/^[a-z]+$/.test(part))
    if (misnamed.length > 0) faults.push(`src/${path}: folders are lower-case words, not "${misnamed.join("/")}"`)
    if (!/^[A-Z][A-Za-z0-9]*$/.test(file) && file !== "index" && file !== "main") {
      faults.push(`src/${path}: files are PascalCase nouns (or index.ts, main.ts)`)
    }
    return faults
  })

export const lengthFaults = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources.flatMap(({ path, text }) => {
    const lines = text.split("\n").length - 1
    return lines <= longest ? [] : [`src/${path}: ${lines} lines; split it before it passes ${longest}`]
  })

/**
 * Every file opens with its header comment: a sentence, and, unless it only gathers others (index.ts) or starts a
 * process (main.ts), the field Checked; each test that it names exists.
 */
export const headerFaults = (
  sources: ReadonlyArray<Source>, isTest: (path: string) => boolean
): ReadonlyArray<string> =>
  sources.flatMap((source) => {
    const place = `src/${source.path}`
    const { fields, sentence, text } = header(source.text)
    if (sentence === "") return [`${place}: no header comment that says in a sentence what the file is`]
    if (!text.includes("@module")) return [`${place}: the header comment lacks the tag @module`]
    if (/(^|\/)(index|main)\.ts$/.test(source.path)) return []
    const checked = fields.get("Checked")
    if (checked === undefined) return [`${place}: the header comment lacks the field Checked`]
    const named = testsNamed(checked)
    if (named.length === 0) return [`${place}: Checked names no test file`]
    return named.filter((path) => !isTest(path)).map((path) => `${place}: Checked names ${path}, which does not exist`)
  })

/** Every exported declaration carries a doc comment (a type and a value of one name share theirs). */
export const documentationFaults = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources.flatMap(({ path, tree }) => {
    const documented = new Set<string>()
    const exported: Array<{ readonly name: string; readonly line: number }> = []
    for (const statement of tree.statements) {
      const isExported = ts.canHaveModifiers(statement) &&
        ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true
      if (!isExported) continue
      const declarations = ts.isVariableStatement(statement) ? statement.declarationList.declarations : [statement]
      const names = declarations.flatMap((declaration) => ts.getNameOfDeclaration(declaration as ts.Declaration) ?? [])
        .map((name) => name.getText(tree))
      const comments = ts.getJSDocCommentsAndTags(statement).filter(ts.isJSDoc)
      const isDocumented = comments.some((comment) => !comment.getText(tree).includes("@module"))
      for (const name of names) {
        exported.push({ name, line: lineOf(tree, statement) })
        if (isDocumented) documented.add(name)
      }
    }
    return exported.filter(({ name }) => !documented.has(name))
      .map(({ line, name }) => `src/${path}:${line}: ${name} is exported without a doc comment`)
  })

const hasComment = (tree: ts.SourceFile, node: ts.TryStatement): boolean =>
  (ts.getLeadingCommentRanges(tree.text, node.getFullStart()) ?? []).length > 0 ||
  (ts.getTrailingCommentRanges(tree.text, node.tryBlock.getStart(tree) + 1) ?? []).length > 0

/** What TypeScript allows and this house does not; a `try` is allowed where a comment on it says why. */
export const syntaxFaults = (sources: ReadonlyArray<Source>): ReadonlyArray<string> =>
  sources.flatMap(({ path, text, tree }) => {
    const faults: Array<string> = []
    const add = (node: ts.Node, fault: string): void => {
      faults.push(`src/${path}:${lineOf(tree, node)}: ${fault}`)
    }
    visit(tree, (node) => {
      if (ts.isTryStatement(node) && node.catchClause !== undefined && !hasComment(tree, node)) {
        add(node, "try/catch without a comment on it that says why")
      }
      if (ts.isAsExpression(node)) {
        if (node.type.kind === ts.SyntaxKind.AnyKeyword) add(node, "a cast to any")
        const inner = ts.isParenthesizedExpression(node.expression) ? node.expression.expression : node.expression
        const isThroughUnknown = ts.isAsExpression(inner) && inner.type.kind === ts.SyntaxKind.UnknownKeyword
        if (isThroughUnknown) add(node, "a cast through unknown")
      }
      if (ts.isClassLike(node)) {
        const parent = node.heritageClauses?.map((clause) => clause.getText(tree)).join(" ") ?? ""
        if (!/\b(Service|TaggedError|TaggedClass|Class|Error)\b/.test(parent)) {
          add(node, "a class that is neither an error, a service nor a schema")
        }
        if (/TaggedError/.test(parent) && node.name?.text.endsWith("Error") === false) {
          add(node, `the error ${node.name.text} must end in Error`)
        }
      }
    })
    const unfinished = /\b(TODO|FIXME|XXX|HACK|not implemented)\b/.exec(text)
    if (unfinished !== null) {
      const line = text.slice(0, unfinished.index).split("\n").length
      faults.push(`src/${path}:${line}: "${unfinished[0]}"`)
    }
    for (const match of text.matchAll(/oxlint-disable[^\n]*/g)) {
      if (!/ -- \S/.test(match[0])) faults.push(`src/${path}: "${match[0].trim()}" gives no reason (-- because …)`)
    }
    return faults
  })

/** The front door holds one namespace per module and nothing else. */
export const indexFaults = (index: Source): ReadonlyArray<string> =>
  index.tree.statements.filter((statement) => !isNamespaceExport(statement)).map((statement) =>
    `src/${index.path}:${lineOf(index.tree, statement)}: only \`export * as Name from "…"\` belongs here`
  )

const isNamespaceExport = (statement: ts.Statement): boolean =>
  ts.isExportDeclaration(statement) && statement.exportClause?.kind === ts.SyntaxKind.NamespaceExport

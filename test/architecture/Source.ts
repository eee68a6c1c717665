/**
 * What the architecture tests know of one source file: its text, its tree and its imports.
 */
import * as Path from "node:path"
import ts from "typescript"
import { readAll } from "../../docs/make/header.mjs"

export interface Import {
  readonly line: number
  /** As written: `./Node.ts`, `effect/Effect`, `node:fs`; `(computed)` where it is no literal. */
  readonly specifier: string
  /** The path under `src` of a relative import, else undefined. */
  readonly target: string | undefined
  /** How the edge holds: only for the compiler, always, or once a call is made. */
  readonly kind: "type" | "static" | "dynamic"
}

export interface Source {
  /** Path below `src`, with forward slashes. */
  readonly path: string
  readonly text: string
  readonly tree: ts.SourceFile
  readonly imports: ReadonlyArray<Import>
}

export const lineOf = (tree: ts.SourceFile, node: ts.Node): number =>
  tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1

export const visit = (node: ts.Node, see: (node: ts.Node) => void): void => {
  see(node)
  ts.forEachChild(node, (child) => visit(child, see))
}

const isTypeOnly = (node: ts.ImportDeclaration | ts.ExportDeclaration): boolean => {
  if (ts.isExportDeclaration(node)) return node.isTypeOnly
  if (node.importClause === undefined) return false
  return node.importClause.phaseModifier === ts.SyntaxKind.TypeKeyword
}

const isImportCall = (node: ts.CallExpression): boolean =>
  node.expression.kind === ts.SyntaxKind.ImportKeyword ||
  (ts.isIdentifier(node.expression) && node.expression.text === "require")

export const parse = (path: string, text: string): Source => {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true)
  const imports: Array<Import> = []
  const add = (node: ts.Node, specifier: string, kind: Import["kind"]): void => {
    const target = specifier.startsWith(".") ? Path.posix.join(Path.posix.dirname(path), specifier) : undefined
    imports.push({ line: lineOf(tree, node), specifier, target, kind })
  }
  visit(tree, (node) => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      const specifier = node.moduleSpecifier
      if (specifier !== undefined && ts.isStringLiteral(specifier)) {
        add(node, specifier.text, isTypeOnly(node) ? "type" : "static")
      }
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) add(node, node.argument.literal.text, "type")
    } else if (ts.isCallExpression(node) && isImportCall(node)) {
      const [argument] = node.arguments
      if (argument === undefined) return
      add(node, ts.isStringLiteral(argument) ? argument.text : "(computed)", "dynamic")
    }
  })
  return { path, text, tree, imports }
}

/** Every source file under a folder. */
export const parseAll = (folder: string): ReadonlyArray<Source> =>
  readAll(folder, ".ts").map(([path, text]) => parse(path, text))

/**
 * Descriptions of models as records of keys: every key understood, or refused by name.
 *
 * A rule says what the value of a key may be. A key without a rule is a fault, for it might change what the model
 * computes; so is a value that breaks its rule. All faults are told at once.
 *
 * From     Cria's own; Penzai's loader refuses unknown keys too.
 * Checked  test/llama/CheckpointConfig.test.ts (any foreign key and any wrong value is named).
 *
 * @module
 */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as Llama from "../Config.ts"
import { CheckpointConfigError, type Fault } from "./CheckpointError.ts"

/** What the value of a key may be; absent is `undefined`. */
export interface Rule {
  readonly expected: string
  readonly accepts: (value: unknown) => boolean
}

/** The keys that are understood. */
export type Rules = Readonly<Record<string, Rule>>

/** A record of keys as it was read. */
export type Fields = Readonly<Record<string, unknown>>

/** A whole number from 1. */
export const count: Rule = {
  expected: "a whole number from 1",
  accepts: (value) => typeof value === "number" && Number.isSafeInteger(value) && value >= 1
}

/** A number above 0. */
export const positive: Rule = {
  expected: "a number above 0", accepts: (value) => typeof value === "number" && value > 0 && value < Infinity
}

/** True or false. */
export const truth: Rule = { expected: "true or false", accepts: Predicate.isBoolean }

/** A key that changes nothing of what the model computes: any value. */
export const inert: Rule = { expected: "anything", accepts: () => true }

/** One of some values; `why` says why no others. */
export const oneOf = (values: ReadonlyArray<unknown>, why: string): Rule => ({
  expected: `${values.map((value) => shown(value)).join(" or ")} (${why})`,
  accepts: (value) => values.some((known) => known === value)
})

/** The same, or absent, or null. */
export const optional = ({ accepts, expected }: Rule): Rule => ({
  expected: `${expected}, or no such key`, accepts: (value) => value === undefined || value === null || accepts(value)
})

/** A value as it is shown: JSON, cut where it is long. */
export const shown = (value: unknown): string => {
  const text = typeof value === "bigint" ? String(value) : JSON.stringify(value) ?? "nothing"
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`
}

/** All that is wrong with a record. */
export const faultsOf = (record: Fields, rules: Rules): ReadonlyArray<Fault> => [
  ...Object.entries(rules).flatMap(([key, { accepts, expected }]) =>
    accepts(own(record, key)) ? [] : [{ key, value: shown(own(record, key)), expected }]),
  ...Object.keys(record).filter((key) => !Object.hasOwn(rules, key)).map((key) =>
    ({ key, value: shown(record[key]), expected: "no such key: Cria does not know what it changes" }))
]

const own = (record: Fields, key: string): unknown => Object.hasOwn(record, key) ? record[key] : undefined

/** The number at a key that a rule has checked; `otherwise` where it is absent or null. */
export const number = (record: Fields, key: string, otherwise: number): number => {
  const value = own(record, key)
  return typeof value === "number" ? value : otherwise
}

/** The record of a JSON text. */
export const parse = (path: string, text: string): Result.Result<Fields, CheckpointConfigError> => {
  const json = decodeJson(text)
  const fault = (value: string, expected: string) =>
    Result.fail(new CheckpointConfigError({ path, faults: [{ key: "the file", value, expected }] }))
  if (Result.isFailure(json)) return fail(fault, json.failure.message)
  const { success } = json
  return Predicate.isObject(success) && !Array.isArray(success)
    ? Result.succeed(Object.fromEntries(Object.entries(success)))
    : fault(shown(success), "a JSON object")
}

/** A JSON file with line breaks and indents. */
export const print = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`

const fail = <A>(fault: (value: string, expected: string) => A, reason: string): A =>
  fault("no JSON", `JSON (${reason.split("\n")[0]})`)

const decodeJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Unknown))
const decodeConfig = Schema.decodeUnknownResult(Llama.Config, { errors: "all", onExcessProperty: "error" })
const format = SchemaIssue.makeFormatterStandardSchemaV1()

/** The configuration of options that a file gave; `names` are the file's keys of ours. */
export const configOf = (
  path: string, options: Llama.Options, names: { readonly [K in keyof Llama.Options]?: string }
): Result.Result<Llama.Config, CheckpointConfigError> =>
  Result.mapError(decodeConfig(options), ({ issue }) =>
    new CheckpointConfigError({
      path,
      faults: format(issue).issues.map(({ message, path: [part] = [] }) => {
        const key = String(Predicate.hasProperty(part, "key") ? part.key : part ?? "the whole")
        const known = Object.entries(names).find(([ours]) => ours === key)?.[1] ?? key
        const value = Object.entries(options).find(([ours]) => ours === key)?.[1]
        return { key: known, value: shown(value), expected: message.replace(/^Expected /, "") }
      })
    }))

/** The configuration, unless anything about the record is wrong. */
export const checked = (
  path: string, faults: ReadonlyArray<Fault>, config: () => Result.Result<Llama.Config, CheckpointConfigError>
): Result.Result<Llama.Config, CheckpointConfigError> =>
  faults.length > 0 ? Result.fail(new CheckpointConfigError({ path, faults })) : config()

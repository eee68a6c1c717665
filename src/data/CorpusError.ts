/**
 * What can be wrong with the files of a corpus: each error names the file, the place in it, and what to do.
 *
 * Checked  test/data/CorpusError.test.ts (every message, from real files).
 *
 * @module
 */
import * as Schema from "effect/Schema"

/** Fails when a path cannot be read. */
export class UnreadablePathError extends Schema.TaggedError<UnreadablePathError>()("UnreadablePathError", {
  path: Schema.String,
  problem: Schema.String,
  /** What to do, where it is not to look for another place. */
  remedy: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    return `cannot read ${this.path}: ${this.problem}\n  ` + (this.remedy ??
      "check the spelling and the permissions; a relative path starts at the folder the command runs in")
  }
}

/** Fails when a folder holds a file of no known kind. */
export class UnknownFormatError extends Schema.TaggedError<UnknownFormatError>()("UnknownFormatError", {
  file: Schema.String,
  folder: Schema.String
}) {
  override get message() {
    return `${this.file}: of a folder, files ending in .txt, .md or .jsonl (each also .gz) are read, and this one is ` +
      `none\n  move it out of ${this.folder}, or name the files by a pattern such as ${this.folder}/**/*.txt: a file ` +
      "that is named or matched is read as plain text whatever its ending"
  }
}

/** Fails when a file holds not a single byte of text. */
export class EmptyFileError extends Schema.TaggedError<EmptyFileError>()("EmptyFileError", { file: Schema.String }) {
  override get message() {
    return `${this.file} is empty: every file of a corpus must hold text\n` +
      "  remove it, or see whether writing it was cut short"
  }
}

/** Fails when paths lead to no document at all. */
export class EmptyCorpusError extends Schema.TaggedError<EmptyCorpusError>()("EmptyCorpusError", {
  paths: Schema.Array(Schema.String)
}) {
  override get message() {
    const place = this.paths.length === 0 ? "an empty list of paths" : this.paths.join(", ")
    return `no text found under ${place}: a corpus must hold at least one document\n` +
      "  name a text file, a .jsonl file, a folder of them, or a pattern that matches some"
  }
}

/** Fails when bytes are not UTF-8 text. Offsets count from 0; those of a compressed file, in what it unpacks to. */
export class NotTextError extends Schema.TaggedError<NotTextError>()("NotTextError", {
  file: Schema.String,
  offset: Schema.Int,
  byte: Schema.optionalKey(Schema.Int)
}) {
  override get message() {
    const remedy = "convert it, for instance with iconv -f LATIN1 -t UTF-8, or leave it out"
    if (this.byte === undefined) {
      return `${this.file}: ends within a character that begins at byte ${this.offset}: text must be UTF-8\n` +
        `  likely the file was cut short; if it is not UTF-8, ${remedy}`
    }
    const byte = `0x${this.byte.toString(16).padStart(2, "0").toUpperCase()}`
    return this.byte === 0
      ? `${this.file}: byte ${this.offset} is zero: this is a binary file (or UTF-16), and text must be UTF-8\n` +
        `  ${remedy}`
      : `${this.file}: byte ${byte} at byte ${this.offset} is not UTF-8, as text must be\n` +
        `  likely another encoding, or a binary file: ${remedy}`
  }
}

/** Fails when a row of a .jsonl file is not a JSON object with a text. Lines count from 1. */
export class RowError extends Schema.TaggedError<RowError>()("RowError", {
  file: Schema.String,
  line: Schema.Int,
  field: Schema.String,
  problem: Schema.String,
  row: Schema.String
}) {
  override get message() {
    const beginning = this.row.length <= 80 ? this.row : `${this.row.slice(0, 80)}…`
    return `${this.file}:${this.line}: a row must be a JSON object whose field "${this.field}" holds a text that is ` +
      `not empty\n  ${this.problem}; the row reads ${beginning}\n` +
      "  repair or remove the row; if the text stands in another field, name that field"
  }
}

/** Fails when a .gz file does not unpack. */
export class GzipError extends Schema.TaggedError<GzipError>()("GzipError", {
  file: Schema.String,
  problem: Schema.String
}) {
  override get message() {
    return `${this.file} does not unpack as gzip: ${this.problem}\n` +
      "  likely the file was cut short or damaged on its way: fetch it again, or test it with gzip -t"
  }
}

/** Everything that can be wrong with the files of a corpus. */
export type CorpusError =
  | UnreadablePathError
  | UnknownFormatError
  | EmptyFileError
  | EmptyCorpusError
  | NotTextError
  | RowError
  | GzipError

/**
 * Instructions, byte for byte as GNU's assembler has them; jumps land on their places; numbers that do not fit are
 * refused.
 */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import * as Assembler from "../../../src/backend/machine/Assembler.ts"

type Argument = number | string | readonly [base: string, distance: number]

type Row = readonly [name: string, given: ReadonlyArray<Argument> | null, text: string, bytes: string]

const { instructions }: { readonly instructions: ReadonlyArray<Row> } = JSON.parse(
  readFileSync(new URL("instructions.json", import.meta.url), "utf8")
)

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const filler = (byteLength: number): Assembler.Instruction => Array.from({ length: byteLength }, () => 0x90)

const exported = new Map(Object.entries(Assembler))

const isJump = (name: string): boolean => name.startsWith("jump")

type Maker = (...given: ReadonlyArray<unknown>) => Assembler.Instruction

/** The bytes of one instruction, made by the export of that name. */
const made = (name: string, given: Row[1]): string => {
  const make = exported.get(name) as Assembler.Instruction | Maker
  if (typeof make !== "function") return hex(Assembler.assemble([make]))
  if (!isJump(name)) {
    const values = (given ?? []).map((value) =>
      typeof value === "object" ? Assembler.at(value[0] as Assembler.Register, value[1]) : value)
    return hex(Assembler.assemble([make(...values)]))
  }
  const distance = Number(given?.[0])
  const target = Assembler.place("there")
  const instruction = make(target)
  const { length } = Assembler.assemble([target, instruction])
  return distance < 0
    ? hex(Assembler.assemble([target, filler(-distance), instruction]).slice(-distance))
    : hex(Assembler.assemble([instruction, filler(distance - length), target]).slice(0, length))
}

describe("instructions", () => {
  for (const name of new Set(instructions.map(([name]) => name))) {
    it(`${name} has the bytes of GNU's assembler`, () => {
      const rows = instructions.filter((row) => row[0] === name)
      assert.deepStrictEqual(
        rows.map(([, given, text]) => `${text}: ${made(name, given)}`),
        rows.map(([, , text, bytes]) => `${text}: ${bytes}`)
      )
    })
  }

  it("are all compared", () => {
    const makers = [...exported.keys()].filter((name) => !["assemble", "at", "place"].includes(name))
    assert.deepStrictEqual([...new Set(instructions.map(([name]) => name))].toSorted(), makers.toSorted())
  })

  it("take four bytes for each number and distance, where the assembler has a shorter form", () => {
    assert.strictEqual(hex(Assembler.assemble([Assembler.addNumber("rax", 1)])), "4881c001000000")
    assert.strictEqual(hex(Assembler.assemble([Assembler.subtractNumber("r10", -1)])), "4981eaffffffff")
    assert.strictEqual(hex(Assembler.assemble([Assembler.multiply("r8", "rsi", 3)])), "4c69c603000000")
    assert.strictEqual(hex(Assembler.assemble([Assembler.load("rcx", Assembler.at("rax"))])), "488b8800000000")
  })
})

describe("assembled code", () => {
  it("is its instructions one after the other", () => {
    assert.deepStrictEqual([...Assembler.assemble([])], [])
    const code = [Assembler.push("r12"), Assembler.place("nothing"), Assembler.pop("r12"), Assembler.end]
    assert.strictEqual(hex(Assembler.assemble(code)), "4154415cc3")
  })

  it("jumps forwards, backwards and to itself", () => {
    const [first, last] = [Assembler.place("first"), Assembler.place("last")]
    const code = Assembler.assemble([
      filler(3), first, Assembler.jumpIfNotEqual(last), Assembler.jumpIfLess(first), filler(5),
      last, Assembler.jumpIfLess(last)
    ])
    // The bytes: 3 of filler, 3–8 jne, 9–14 jl, 15–19 filler, 20–25 jl; a distance counts from behind its jump.
    assert.strictEqual(hex(code), ["909090", "0f850b000000", "0f8cf4ffffff", "9090909090", "0f8cfaffffff"].join(""))
  })

  it("tells places apart that have one text", () => {
    const [one, other] = [Assembler.place("next"), Assembler.place("next")]
    const code = Assembler.assemble([Assembler.jumpIfLess(other), one, filler(2), other])
    assert.strictEqual(hex(code), "0f8c020000009090")
  })

  it("has no jump to a place that it lacks", () => {
    assert.throws(() => Assembler.assemble([Assembler.place("there"), Assembler.jumpIfLess(Assembler.place("there"))]),
      RangeError, "a jump to there, a place that the code lacks")
  })

  it("has no place twice", () => {
    const there = Assembler.place("there")
    assert.throws(() => Assembler.assemble([there, Assembler.jumpIfLess(there), there]),
      RangeError, "there is a place that the code has twice")
  })

  it("has whole numbers of 32 bits only, where it does not set a register", () => {
    const refused: ReadonlyArray<readonly [number, () => Assembler.Instruction]> = [
      [2 ** 31, () => Assembler.addNumber("rcx", 2 ** 31)],
      [-(2 ** 31) - 1, () => Assembler.multiply("rcx", "rdx", -(2 ** 31) - 1)],
      [2 ** 32, () => Assembler.load("rcx", Assembler.at("rsp", 2 ** 32))],
      [2 ** 40, () => Assembler.storeVector(0, Assembler.at("rdi", 2 ** 40), 1)],
      [1.5, () => Assembler.compareNumber("rcx", 1.5)],
      [NaN, () => Assembler.load("rcx", Assembler.at("rsp", NaN))],
      [Infinity, () => Assembler.subtractNumber("rcx", Infinity)]
    ]
    for (const [value, make] of refused) assert.throws(make, RangeError, `${value} is no whole number of 32 bits`)
  })

  it("sets registers to whole numbers below 2^53 only", () => {
    for (const value of [2 ** 53, -(2 ** 53), 1.5, NaN, Infinity]) {
      assert.throws(() => Assembler.set("rax", value), RangeError, `${value} is no whole number below 2^53 in size`)
    }
  })
})

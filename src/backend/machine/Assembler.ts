/**
 * Machine code as a value: instructions of x86-64 with AVX-512, and what assembles them.
 *
 *     assemble([load("rax", at("rdi")), …, end])   the bytes of a function
 *
 * An instruction is a list of bytes, a place that can be jumped to, or a jump there. Vectors are numbered, 0 to 31, and
 * hold 16 float32 each; registers have their names, memory is a register and a distance in bytes.
 *
 * From     Intel's Software Developer's Manual, volume 2 (encoding with REX, VEX and EVEX).
 * Checked  test/backend/machine/Assembler.test.ts: byte for byte as GNU's assembler has it.
 * Departs  distances and jumps always take four bytes, which every assembler shortens where it can.
 *
 * @module
 */

/** The sixteen registers, numbered as the processor does. */
const registers = [
  "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"
] as const

/** A register that holds a whole number of 64 bits, or an address. */
export type Register = typeof registers[number]

/** Memory, so many bytes behind where a register points. */
export interface Memory {
  readonly base: Register
  readonly distance: number
}

/** A place in the code: each is one of its own. */
export interface Place {
  readonly place: string
}

/** A jump to a place. */
interface Jump {
  readonly bytes: ReadonlyArray<number>
  readonly to: Place
}

/** A piece of code. */
export type Instruction = ReadonlyArray<number> | Place | Jump

/** Instructions one after the other. */
export type Code = ReadonlyArray<Instruction>

const isBytes = (instruction: Instruction): instruction is ReadonlyArray<number> => Array.isArray(instruction)

/** The bytes of some code. Throws a `RangeError` for a place that it has twice, or jumps to and does not have. */
export const assemble = (code: Code): Uint8Array => {
  const offsets = new Map<Place, number>()
  let length = 0
  for (const instruction of code) {
    if (isBytes(instruction)) length += instruction.length
    else if ("to" in instruction) length += instruction.bytes.length + 4
    else if (offsets.has(instruction)) throw new RangeError(`${instruction.place} is a place that the code has twice`)
    else offsets.set(instruction, length)
  }
  const bytes = new Uint8Array(length)
  let end = 0
  for (const instruction of code) {
    const written = isBytes(instruction) ? instruction : "to" in instruction ? instruction.bytes : []
    bytes.set(written, end)
    end += written.length
    if (isBytes(instruction) || !("to" in instruction)) continue
    const target = offsets.get(instruction.to)
    if (target === undefined) throw new RangeError(`a jump to ${instruction.to.place}, a place that the code lacks`)
    bytes.set(int32(target - (end += 4)), end - 4)
  }
  return bytes
}

const int32 = (value: number): ReadonlyArray<number> => {
  if (value !== (value | 0)) throw new RangeError(`${value} is no whole number of 32 bits`)
  return [value & 255, value >> 8 & 255, value >> 16 & 255, value >> 24 & 255]
}

const numberOf = (register: Register): number => registers.indexOf(register)

/** Memory at a register, or a distance behind it. */
export const at = (base: Register, distance = 0): Memory => ({ base, distance })

/** The operand in memory, behind an opcode: its base, how far behind that, and the other operand. */
const operand = (other: number, { base, distance }: Memory): ReadonlyArray<number> => {
  const low = numberOf(base) & 7
  return [0x80 | (other & 7) << 3 | low, ...low === 4 ? [0x24] : [], ...int32(distance)]
}

/** The prefix of an instruction on registers of 64 bits. */
const wide = (other: number, base: number): number => 0x48 | other >> 3 << 2 | base >> 3

const onMemory = (opcode: number) => (register: Register, memory: Memory): Instruction => {
  const number = numberOf(register)
  return [wide(number, numberOf(memory.base)), opcode, ...operand(number, memory)]
}

const onRegisters = (opcode: number) => (target: Register, source: Register): Instruction => {
  const [to, from] = [numberOf(target), numberOf(source)]
  return [wide(from, to), opcode, 0xc0 | (from & 7) << 3 | to & 7]
}

const withNumber = (extension: number) => (register: Register, value: number): Instruction => {
  const number = numberOf(register)
  return [wide(0, number), 0x81, 0xc0 | extension << 3 | number & 7, ...int32(value)]
}

/** register ← memory */
export const load = onMemory(0x8b)
/** memory ← register */
export const store = onMemory(0x89)
/** register ← the address of memory */
export const address = onMemory(0x8d)
/** target ← source */
export const copy = onRegisters(0x89)
/** target ← target + source */
export const add = onRegisters(0x01)
/** target ← target − source */
export const subtract = onRegisters(0x29)
/** Tests, for a jump behind it, whether both have a bit in common. */
export const test = onRegisters(0x85)
/** register ← register + value */
export const addNumber = withNumber(0)
/** register ← register − value */
export const subtractNumber = withNumber(5)
/** Compares with a value, for a jump behind it. */
export const compareNumber = withNumber(7)

/** target ← source · value */
export const multiply = (target: Register, source: Register, value: number): Instruction => {
  const [to, from] = [numberOf(target), numberOf(source)]
  return [wide(to, from), 0x69, 0xc0 | (to & 7) << 3 | from & 7, ...int32(value)]
}

/** register ← value, a whole number or an address */
export const set = (register: Register, value: number): Instruction => {
  if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is no whole number below 2^53 in size`)
  const number = numberOf(register)
  const bytes = new Uint8Array(BigInt64Array.of(BigInt(value)).buffer)
  return [wide(0, number), 0xb8 | number & 7, ...bytes]
}

const short = (opcode: number) => (register: Register): Instruction => {
  const number = numberOf(register)
  return [...number > 7 ? [0x41] : [], opcode | number & 7]
}

/** Puts a register on the stack. */
export const push = short(0x50)
/** Takes a register from the stack. */
export const pop = short(0x58)

/** Calls the function at the address in a register. */
export const call = (register: Register): Instruction => {
  const number = numberOf(register)
  return [...number > 7 ? [0x41] : [], 0xff, 0xd0 | number & 7]
}

/** Ends a function. */
export const end: Instruction = [0xc3]

/** A place to jump to; the text is for messages. */
export const place = (text: string): Place => ({ place: text })

const jumpIf = (condition: number) => (to: Place): Instruction => ({ bytes: [0x0f, 0x80 | condition], to })

/** Jumps where the last comparison, test or sum was not equal, or not zero. */
export const jumpIfNotEqual = jumpIf(5)
/** Jumps where it was less, numbers having a sign. */
export const jumpIfLess = jumpIf(12)

/** Asks for the 64 bytes around some memory, before they are read; never faults. */
export const prefetch = (memory: Memory): Instruction => {
  const base = numberOf(memory.base)
  return [...base > 7 ? [0x41] : [], 0x0f, 0x18, ...operand(1, memory)]
}

/** Leaves the upper halves of vectors behind, as code without AVX wants it. */
export const leaveVectors: Instruction = [0xc5, 0xf8, 0x77]

/** Sets a mask, 1 to 7, to the bits of a register. */
export const setMask = (mask: number, register: "rax" | "rcx" | "rdx" | "rbx" | "rsi" | "rdi"): Instruction =>
  [0xc5, 0xf8, 0x92, 0xc0 | mask << 3 | numberOf(register)]

/** Opcodes come from tables, which a prefix chooses. */
interface Opcode {
  readonly table: 1 | 2 | 3
  readonly prefix: 0 | 1 | 2 | 3
  readonly code: number
}

interface Options {
  /** One number of memory stands for all of a vector. */
  readonly isSpread?: boolean
  readonly mask?: number
}

const evex = (
  { code, prefix, table }: Opcode, target: number, first: number, rest: ReadonlyArray<number>,
  base: readonly [bit3: number, bit4: number], { isSpread = false, mask = 0 }: Options = {}
): Instruction => [
  0x62,
  (~target >> 3 & 1) << 7 | (~base[1] & 1) << 6 | (~base[0] & 1) << 5 | (~target >> 4 & 1) << 4 | table,
  (~first & 15) << 3 | 4 | prefix,
  0x40 | (isSpread ? 0x10 : 0) | (~first >> 4 & 1) << 3 | mask,
  code, ...rest
]

const vectors = (opcode: Opcode) => (target: number, first: number, second: number): Instruction =>
  evex(opcode, target, first, [0xc0 | (target & 7) << 3 | second & 7], [second >> 3, second >> 4])

const withMemory = (opcode: Opcode, options?: Options) =>
  (target: number, first: number, memory: Memory, mask = 0): Instruction =>
    evex(opcode, target, first, operand(target, memory), [numberOf(memory.base) >> 3, 0], { ...options, mask })

const ofTwo = (opcode: Opcode) => {
  const inMemory = withMemory(opcode)
  return (target: number, memory: Memory, mask = 0): Instruction => inMemory(target, 0, memory, mask)
}

/** target ← target + first · the one number in memory */
export const multiplyAddNumber = withMemory({ table: 2, prefix: 1, code: 0xb8 }, { isSpread: true })
/** target ← first + second */
export const addVectors = vectors({ table: 1, prefix: 0, code: 0x58 })
/** target ← 16 numbers of memory */
export const loadVector = ofTwo({ table: 1, prefix: 0, code: 0x10 })
/** 16 numbers of memory ← source; those of the mask, where one is given */
export const storeVector = ofTwo({ table: 1, prefix: 0, code: 0x11 })

const exclusiveOr = vectors({ table: 1, prefix: 1, code: 0xef })

/** vector ← 0 */
export const clear = (vector: number): Instruction => exclusiveOr(vector, vector, vector)

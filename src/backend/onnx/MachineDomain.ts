/**
 * Has ONNX Runtime know operators of our own: their code in memory, and the domain by which sessions find them.
 *
 * The engine notes each domain in a table of the process, which sessions read when they are made: so ours is introduced
 * once, by a session that nothing else runs beside.
 *
 * From     onnxruntime_c_api.h, API version 23.
 * Checked  test/backend/onnx/MachineOperator.test.ts.
 *
 * @module
 */
import { minimumBytes } from "./Buffer.ts"
import type { CodeMemory } from "./CodeMemory.ts"
import { type EngineFunctions, layOut, machineDomain, type MachineOperator } from "./MachineOperator.ts"
import { encodeModel, type Graph } from "./ModelProto.ts"

/** Functions of the library that are used here, over addresses; they throw where the library refuses. */
export interface Functions {
  readonly makeDomain: (name: string) => number
  readonly addOperator: (domain: number, table: number) => void
  readonly addDomain: (options: number, domain: number) => void
  readonly releaseDomain: (domain: number) => void
  readonly makeOptions: () => number
  readonly releaseOptions: (options: number) => void
  /** Makes a session at once, at an address that it returns. */
  readonly makeSession: (model: Uint8Array, options: number, out: BigUint64Array) => number
  readonly releaseSession: (session: number) => void
  readonly called: EngineFunctions
}

/** Operators in memory, for sessions that end before they are released. */
export interface MachineDomain {
  readonly domain: number
  readonly release: () => void
}

/** A model that hands on a number. */
const smallest: Graph = {
  inputs: [{ name: "x", type: "f32", sizes: [1] }], outputs: [{ name: "y", type: "f32", sizes: [1] }],
  initializers: [], nodes: [{ op: "Identity", inputs: ["x"], outputs: ["y"] }]
}

/** Introduces the domain, and gives what makes one of some operators. */
export const make = (memory: CodeMemory, functions: Functions) => {
  const { addDomain, addOperator, called, makeDomain, releaseDomain } = functions
  const introduced = makeDomain(machineDomain)
  const options = functions.makeOptions()
  addDomain(options, introduced)
  functions.releaseSession(
    functions.makeSession(encodeModel(smallest), options, new BigUint64Array(minimumBytes / 8)))
  functions.releaseOptions(options)
  releaseDomain(introduced)
  return (operators: ReadonlyArray<MachineOperator>): MachineDomain => {
    let tables: ReadonlyArray<number> = []
    const code = memory.map(layOut(operators, 0, called).bytes.length, (address) => {
      const laid = layOut(operators, address, called)
      tables = laid.tables
      return laid.bytes
    })
    const domain = makeDomain(machineDomain)
    for (const table of tables) addOperator(domain, table)
    return {
      domain,
      release: () => {
        releaseDomain(domain)
        code.free()
      }
    }
  }
}

/**
 * ONNX Runtime's C library, called directly through koffi: no copies, and an event loop that stays live.
 *
 * Every address is a JavaScript number (user-space addresses stay below 2^53) and names and values are packed into
 * pointer tables once, so a run passes eight numbers. Native code runs on stacks that koffi makes, without guard
 * pages: they are set to the 8 MiB that a thread normally has. One environment with one global thread pool serves all
 * sessions (pools of their own spin against each other) and is kept until the process ends.
 *
 * From     onnxruntime_c_api.h, API version 23; the table of functions only ever grows at its end.
 * Checked  test/backend/onnx/Engine.test.ts, test/soak/Engine.test.ts. Run on linux x64 only; the other paths follow
 *          the npm package.
 * Departs  memory patterns are off: with fixed sizes they doubled the memory of a session and won no time. Denormals
 *          are kept: the session option flushes JavaScript's own numbers on this thread, the global one only those of
 *          the pool's threads, so that a result depends on which thread computed it.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { statSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { basename, dirname } from "node:path"
import { fileURLToPath } from "node:url"
import * as Lock from "../Lock.ts"
import { alignment, allocate, type Buffer, isRemote, minimumBytes, type Remote } from "./Buffer.ts"
import * as CodeMemory from "./CodeMemory.ts"
import { type EngineError, failure } from "./EngineError.ts"
import { fewestBytes } from "./HandedWeights.ts"
import * as LargePages from "./LargePages.ts"
import * as MachineDomain from "./MachineDomain.ts"
import type { MachineOperator } from "./MachineOperator.ts"
import { elementCount, elements, elementTypeOf } from "./ModelProto.ts"
import {
  type Declared, type Device, type Interface, make as makeSession, type Native, type Optimization
} from "./Session.ts"

/** How the C library is found and started. */
export interface Options {
  /** Threads that compute, this one included; by default the cores this process may use, at most 16. */
  readonly threads?: number
  /** Whether idle threads spin for about a millisecond: quicker when the process is alone (1.2 against 2.0 ms for 80
   * small operators on two cores), slower on a busy machine (84 against 65 ms for large ones). True by default. */
  readonly spin?: boolean
  /** Path of an ONNX Runtime library, in place of the one inside the package onnxruntime-node. */
  readonly library?: string
  /** Whether products of few rows may run machine code of our own, which a processor with AVX-512 and Linux takes; true
   * by default. */
  readonly machineCode?: boolean
  /** Who computes, as the library calls it, and its settings; the processor by default, and whatever it cannot. */
  readonly provider?: Provider
}

/** An execution provider of the library. */
export interface Provider {
  readonly name: "WebGPU" | "CUDA"
  /** Whether a program that it cannot compute whole fails to load; otherwise the processor computes the rest. */
  readonly isAlone?: boolean
}

/**
 * Where the package onnxruntime-node keeps the library, or nothing for a platform it is not built for. Seen working on
 * linux x64 only; the other four are read off the package and were never run.
 */
export const libraryPath = (platform: string, architecture: string, packageRoot: string): string | undefined => {
  const files: Readonly<Record<string, string>> = {
    "linux x64": "libonnxruntime.so.1",
    "linux arm64": "libonnxruntime.so.1",
    "darwin arm64": "libonnxruntime.1.dylib",
    "win32 x64": "onnxruntime.dll",
    "win32 arm64": "onnxruntime.dll"
  }
  const file = files[`${platform} ${architecture}`]
  if (file === undefined) return undefined
  return [packageRoot, "bin", "napi-v6", platform, architecture, file].join(platform === "win32" ? "\\" : "/")
}

const apiVersion = 23

type Koffi = typeof import("koffi")

/** A C function: addresses, sizes and integers are numbers. `async` runs it on another thread, then calls back. */
interface NativeFunction {
  (...values: ReadonlyArray<number | string>): number
  readonly async: (...values: [...ReadonlyArray<number>, (error: Error | null, status: number) => void]) => void
}

const parameterTypes: Readonly<Record<string, string>> = { a: "uintptr_t", n: "size_t", i: "int", s: "str" }

/** A weight that a session is handed: memory that is read as long as the session is open, and the tensor over it. */
interface Handed {
  readonly name: string
  readonly buffer: Buffer
  readonly tensor: number
}

/** The library, loaded once: its environment, and what sessions need of it. Kept until the process ends. */
const open = (koffi: Koffi, path: string, threads: number, spin: boolean) => {
  if (process.platform === "linux") keepMappings(koffi)
  const library = koffi.load(path)
  const [getApi, getVersion] = koffi.decode(library.func("OrtGetApiBase", "void *", [])(), "void *", 2)
  const version: string = koffi.decode(getVersion, koffi.proto("str", []))()
  const api = koffi.decode(getApi, koffi.proto("void *", ["uint32_t"]))(apiVersion)
  if (api === null) throw new Error(`it is ONNX Runtime ${version}, which does not have API version ${apiVersion}`)
  const functions: ReadonlyArray<unknown> = koffi.decode(api, "void *", 275)
  const table: ReadonlyArray<number | bigint> = koffi.decode(api, "uintptr_t", 275)
  const addressAt = (index: number): number => Number(table[index])
  const native = (index: number, parameters: string, result = "uintptr_t"): NativeFunction =>
    koffi.decode(functions[index], koffi.proto(result, [...parameters].map((kind) => parameterTypes[kind] ?? kind)))

  const out = new BigUint64Array(minimumBytes / 8) // where functions leave what they make
  const outSizes = new BigInt64Array(out.buffer)
  const outInteger = new Int32Array(out.buffer)
  const outAddress = Number(koffi.address(out))
  const getErrorMessage: (status: number) => string = koffi.decode(functions[2], koffi.proto("str", ["uintptr_t"]))
  const releaseStatus = native(93, "a", "void")
  const failed = (status: number): string | undefined => {
    if (status === 0) return undefined
    const text = getErrorMessage(status)
    releaseStatus(status)
    return text
  }
  const check = (status: number): void => {
    const text = failed(status)
    if (text !== undefined) throw new Error(text)
  }
  const made = (status: number): number => {
    check(status)
    return Number(out[0])
  }

  const threading = made(native(121, "a")(outAddress))
  check(native(147, "ai")(threading, threads))
  check(native(148, "ai")(threading, 1))
  check(native(149, "ai")(threading, spin ? 1 : 0))
  const silent = 4 // only fatal messages are printed: failures come back as text
  const environment = made(native(119, "isaa")(silent, "cria", threading, outAddress))
  native(122, "a", "void")(threading)
  const memory = made(native(69, "iia")(0, 0, outAddress))
  const allocator = made(native(78, "a")(outAddress))
  const sessionOptions = (level: number, provider?: Provider, onHost: ReadonlySet<string> = new Set()): number => {
    const options = made(native(10, "a")(outAddress))
    check(native(120, "a")(options)) // no thread pool of its own
    check(native(17, "a")(options)) // no memory pattern
    check(native(23, "ai")(options, level))
    if (provider === undefined) return options
    if (onHost.size > 0) {
      check(native(130, "ass")(options, `ep.${provider.name.toLowerCase()}executionprovider.forceCpuNodeNames`,
        [...onHost].join("\n")))
    }
    if (provider.isAlone === true) check(native(130, "ass")(options, "session.disable_cpu_ep_fallback", "1"))
    if (provider.name === "CUDA") { // the one that is not known by its name
      const cuda = made(native(205, "a")(outAddress))
      const status = native(204, "aa")(options, cuda)
      native(208, "a", "void")(cuda)
      check(status)
    } else check(native(216, "asaan")(options, provider.name, outAddress, outAddress, 0))
    return options
  }
  const names = made(native(125, "aa")(outAddress, outAddress + 8))
  const count = outInteger[2] ?? 0
  const providers: ReadonlyArray<string> = koffi.decode(koffi.decode(out, "void *"), koffi.array("str", count))
  check(native(126, "ai")(names, count))

  const freeMemory = native(76, "aa")
  const castToTensorInfo = native(55, "aa")
  const getElementType = native(60, "aa")
  const getRank = native(61, "aa")
  const getSizes = native(62, "aan")
  const releaseTypeInfo = native(98, "a", "void")
  /** What a session declares, read with the functions for its inputs or for its outputs. */
  const declared = (
    session: number, getCount: NativeFunction, getName: NativeFunction, getTypeInfo: NativeFunction
  ): ReadonlyArray<Declared> =>
    Array.from({ length: made(getCount(session, outAddress)) }, (_, index) => {
      const address = made(getName(session, index, allocator, outAddress))
      const name: string = koffi.decode(out, "str")
      check(freeMemory(allocator, address))
      const typeInfo = made(getTypeInfo(session, index, outAddress))
      const tensorInfo = made(castToTensorInfo(typeInfo, outAddress))
      if (tensorInfo === 0) throw new Error(`${name} is not a tensor`)
      check(getElementType(tensorInfo, outAddress))
      const type = elementTypeOf(outInteger[0] ?? 0)
      const rank = made(getRank(tensorInfo, outAddress))
      if (rank > out.length) throw new Error(`${name} has ${rank} axes`)
      check(getSizes(tensorInfo, outAddress, rank))
      const sizes = Array.from(outSizes.subarray(0, rank), Number)
      releaseTypeInfo(typeInfo)
      return { name, type, sizes }
    })

  const inputFunctions = [native(30, "aa"), native(36, "anaa"), native(33, "ana")] as const
  const outputFunctions = [native(31, "aa"), native(37, "anaa"), native(34, "ana")] as const
  const createTensor = native(49, "aanania")
  const addConfiguration = native(130, "ass")
  const addInitializer = native(150, "asa")
  const createMemoryInfo = native(68, "siiia")
  const createAllocator = native(131, "aaa")
  const createContainer = native(166, "a")
  const allocateMemory = native(75, "ana")
  const createSession = native(8, "aanaa")
  const [releaseSession, releaseOptions] = [native(95, "a", "void"), native(100, "a", "void")]
  const [createDomain, addToDomain, addDomain] = [native(26, "sa"), native(27, "aa"), native(28, "aa")]
  const machine: MachineDomain.Functions = {
    makeDomain: (name) => made(createDomain(name, outAddress)),
    addOperator: (domain, table) => check(addToDomain(domain, table)),
    addDomain: (options, domain) => check(addDomain(options, domain)),
    releaseDomain: native(101, "a", "void"),
    makeOptions: () => sessionOptions(0), releaseOptions,
    makeSession: (model, options, out) => {
      const [bytes, place] = [Number(koffi.address(model)), Number(koffi.address(out))]
      check(createSession(environment, bytes, model.length, options, place))
      return Number(out[0])
    },
    releaseSession,
    called: { getInput: addressAt(90), getOutput: addressAt(91), getData: addressAt(51), parallelFor: addressAt(274) }
  }
  const codeMemory = CodeMemory.make(koffi)
  const makeDomain = codeMemory === undefined ? undefined // nor where no session can be made: the next one says why
    : Result.getOrUndefined(Result.try(() => MachineDomain.make(codeMemory, machine)))
  return {
    /** Puts operators of our own in memory, where machine code runs. */
    makeDomain,
    addDomain: machine.addDomain,
    path, threads, spin, version, failed, environment,
    pages: LargePages.make(koffi),
    providers: providers.map((name) => name.replace("ExecutionProvider", "").toLowerCase()),
    addressOf: (memory: ArrayBufferLike | ArrayBufferView): number => Number(koffi.address(memory)),
    options: {
      off: sessionOptions(0), basic: sessionOptions(1), extended: sessionOptions(2), all: sessionOptions(99)
    },
    /** Options of one session: a provider counts its sessions by them. */
    optionsWith: sessionOptions,
    /** Adds weights to the options of one session: tensors that live as long as it does. */
    handOver: (options: number, folder: string, handed: ReadonlyArray<Handed>): void => {
      check(addConfiguration(options, "session.model_external_initializers_file_folder_path", folder))
      for (const { name, tensor } of handed) check(addInitializer(options, name, tensor))
    },
    releaseOptions,
    createSession,
    /** Where sessions keep what they pack of weights that they are handed. */
    createContainer: (): number => made(createContainer(outAddress)),
    releaseContainer: native(167, "a", "void"),
    createSharingSession: native(169, "aanaaa"),
    inputs: (session: number) => declared(session, ...inputFunctions),
    outputs: (session: number) => declared(session, ...outputFunctions),
    /** A tensor over memory of the host, or of a device; the sizes are copied. */
    createTensor: ({ sizes, type }: Buffer | Remote, address: number, place = memory): number => {
      const length = elementCount(sizes) * elements[type].bytes
      const axes = BigInt64Array.from(sizes, BigInt)
      return made(createTensor(
        place, address, length, Number(koffi.address(axes)), axes.length, elements[type].code, outAddress
      ))
    },
    /** Says which memory a provider has on its device. */
    createMemoryInfo: ({ name }: Provider): number => made(createMemoryInfo(memoryNames[name], 1, 0, 0, outAddress)),
    releaseMemoryInfo: native(94, "a", "void"),
    /** What gives a session memory of that sort. */
    createAllocator: (session: number, place: number): number => made(createAllocator(session, place, outAddress)),
    releaseAllocator: native(132, "a", "void"),
    allocate: (allocator: number, bytes: number): number => made(allocateMemory(allocator, bytes, outAddress)),
    free: (allocator: number, address: number): void => check(freeMemory(allocator, address)),
    run: native(9, "aaaanana"),
    releaseValue: native(96, "a", "void"),
    releaseSession
  }
}

/**
 * Has glibc map and unmap every piece of 4 MiB or more, as it does at first. Left alone it learns from each piece that
 * is freed to keep pieces of that size: resident memory then grew by a fifth over a thousand steps of training.
 */
const keepMappings = (koffi: Koffi): void => {
  const [mmapThreshold, size] = [-3, 2 ** 22]
  const setting = Result.try(() => koffi.load("libc.so.6").func("mallopt", "int", ["int", "int"]))
  if (Result.isSuccess(setting)) setting.success(mmapThreshold, size) // another C library has no such habit
}

type Library = ReturnType<typeof open>

// The library allows one environment a process, so this is the one piece of state a module keeps.
let opened: Library | undefined

const openOnce = (options: Options): Effect.Effect<Library, EngineError> =>
  Effect.suspend(() => {
    const { library, spin = opened?.spin ?? true, threads = opened?.threads ?? Math.min(availableParallelism(), 16) } =
      options
    if (!Number.isSafeInteger(threads) || threads < 1) {
      return Effect.fail(failure("BadOption", "its C library", `threads: ${threads}`))
    }
    if (opened !== undefined) {
      const differences = [
        ...(threads === opened.threads ? [] : [`threads: ${opened.threads} are running, ${threads} were asked for`]),
        ...(spin === opened.spin ? [] : [`spin: it is ${opened.spin}, ${spin} was asked for`]),
        ...(library ?? opened.path) === opened.path ? [] : [`library: ${opened.path} is loaded, not ${library}`]
      ]
      return differences.length === 0
        ? Effect.succeed(opened)
        : Effect.fail(failure("ThreadsPinned", "its C library", ...differences))
    }
    // Set here and not by users: the library reads it when it loads, and would otherwise send usage data.
    process.env["ORT_DISABLE_TELEMETRY"] = "1"
    const require = createRequire(import.meta.url)
    const missing = (place: string) => (cause: unknown) => failure("MissingLibrary", "its C library", place, cause)
    return Effect.gen(function*() {
      const koffi = yield* Effect.try({ try: (): Koffi => require("koffi"), catch: missing("koffi") })
      const path = library ?? (yield* Effect.try({
        try: () => {
          const root = dirname(require.resolve("onnxruntime-node/package.json"))
          return libraryPath(process.platform, process.arch, root)
        },
        catch: missing("onnxruntime-node")
      }))
      if (path === undefined) {
        return yield* missing("onnxruntime-node")(`it has no library for ${process.platform} ${process.arch}`)
      }
      yield* growStacks(koffi)
      opened = yield* Effect.try({ try: () => open(koffi, path, threads, spin), catch: missing(path) })
      return opened
    })
  })

/** Kernels were seen using 88 KiB of koffi's 128; without a guard page an overflow would corrupt memory unseen. */
const growStacks = (koffi: Koffi): Effect.Effect<void, EngineError> => {
  const enough = 8 * 2 ** 20
  const { async_stack_size = 0, sync_stack_size = 0 } = koffi.config()
  return async_stack_size >= enough && sync_stack_size >= enough ? Effect.void : Effect.try({
    try: () => koffi.config({ async_stack_size: enough, sync_stack_size: enough }),
    catch: (cause) =>
      failure("StackTooSmall", "its C library", `sync ${sync_stack_size} bytes, async ${async_stack_size} bytes`, cause)
  })
}

// Calls wait on the four threads that Node also reads files with; one of them is left for those and for `LargePages`.
const permits = Lock.make(3)

/** Loads a model on another thread. The callback names `model` and `out`, so neither is collected before its call. */
const loadModel = (
  library: Library, model: Uint8Array, options: number, container?: number
): Effect.Effect<number, EngineError> =>
  permits.hold(Effect.uninterruptible(Effect.callback<number, EngineError>((resume) => {
    const out = new BigUint64Array(minimumBytes / 8)
    const { addressOf, createSession, createSharingSession, environment, failed } = library
    const done = (error: Error | null, status: number): void => {
      const text = error === null ? failed(status) : error.message
      if (text === undefined) return resume(Effect.succeed(Number(out[0])))
      const reason = text.includes("GlobalThreadPools") ? "ThreadsPinned" : "BadModel"
      resume(Effect.fail(failure(reason, "createSession", text, `the model has ${model.length} bytes`)))
    }
    if (container === undefined) {
      createSession.async(environment, addressOf(model), model.length, options, addressOf(out), done)
    } else {
      createSharingSession.async(environment, addressOf(model), model.length, options, container, addressOf(out), done)
    }
  })))

/** What the library calls the memory of a device. */
const memoryNames: Record<Provider["name"], string> = { WebGPU: "WebGPU_Buffer", CUDA: "Cuda" }

interface NativeDevice extends Device {
  /** What stands for its memory where a tensor is made. */
  readonly place: number
  readonly release: () => void
}

/** The memory of a device, given out by a session; a device does one thing at a time. */
const nativeDevice = (
  library: Library, session: number, provider: Provider, permits: Lock.Lock
): NativeDevice => {
  const place = library.createMemoryInfo(provider)
  let allocator: number | undefined
  let isReleased = false
  const alone = permits.hold
  return {
    place,
    allocate: (bytes) => alone(Effect.suspend(() => isReleased
      ? Effect.fail(failure("Closed", "allocate"))
      : Effect.try({
        try: () => library.allocate(allocator ??= library.createAllocator(session, place), bytes),
        catch: (cause) => failure("OutOfMemory", "allocate", `${bytes} bytes on the device of ${provider.name}`, cause)
      }))),
    free: (address) => alone(Effect.sync(() => {
      if (!isReleased && allocator !== undefined) library.free(allocator, address)
    })),
    release: () => {
      isReleased = true
      if (allocator !== undefined) library.releaseAllocator(allocator)
      library.releaseMemoryInfo(place)
    }
  }
}

const nativeSession = (
  library: Library, session: number, handed: ReadonlyArray<Handed>, permits: Lock.Lock, provider: Provider | undefined
): Native => {
  const { addressOf, createTensor, failed, releaseSession, releaseValue, run } = library
  const device = provider === undefined ? undefined : nativeDevice(library, session, provider, permits)
  const inputs = library.inputs(session)
  const outputs = library.outputs(session)
  const names = inputs.concat(outputs).map(({ name }) => new TextEncoder().encode(name + "\0".repeat(minimumBytes)))
  const nameTable = table(names.map(addressOf))
  const inputNames = addressOf(nameTable)
  const outputNames = inputNames + 8 * inputs.length
  const values = new Set<number>()
  const releaseValues = (these: Iterable<number>): void => {
    for (const value of these) if (values.delete(value)) releaseValue(value)
  }
  const forgotten = new FinalizationRegistry<ReadonlyArray<number>>(releaseValues)
  const bind: Native["bind"] = (inputBuffers, outputBuffers) => {
    const buffers = inputBuffers.concat(outputBuffers)
    const bound: Array<number> = []
    const bindValue = (buffer: Buffer | Remote, address: number, place?: number): number => {
      const value = createTensor(buffer, address, place)
      bound.push(value)
      values.add(value)
      return value
    }
    const valueTable = table(buffers.map((buffer) => isRemote(buffer) ? 0 : bindValue(buffer, addressOf(buffer.bytes))))
    const remotes = buffers.flatMap((buffer, index) =>
      isRemote(buffer) ? [{ buffer, index, known: new Map<number, number>() }] : [])
    const follow = (): void => {
      for (const { buffer, index, known } of remotes) {
        const address = buffer.address()
        const value = known.get(address) ?? bindValue(buffer, address, device?.place)
        known.set(address, value)
        valueTable[index] = BigInt(value)
      }
    }
    const inputValues = addressOf(valueTable)
    const outputValues = inputValues + 8 * inputs.length
    const nativeRun = {
      // native code has their addresses: they live as long as the binding, be its Scope forgotten and never closed
      keep: [names, nameTable, valueTable, handed],
      now: () => {
        follow()
        return failed(
          run(session, 0, inputNames, inputValues, inputs.length, outputNames, outputs.length, outputValues)
        )
      },
      start: (done: (failed: string | undefined) => void) => {
        follow()
        run.async(
          session, 0, inputNames, inputValues, inputs.length, outputNames, outputs.length, outputValues,
          (error, status) => done(error === null ? failed(status) : error.message)
        )
      }
    }
    forgotten.register(nativeRun, bound)
    return nativeRun
  }
  return {
    inputs,
    outputs,
    permits,
    bind,
    device,
    refuses: (buffer) => {
      if (isRemote(buffer)) return undefined
      const { bytes } = buffer
      if (addressOf(bytes) % alignment !== 0) return `starts at no multiple of ${alignment} bytes`
      return bytes.buffer.byteLength < minimumBytes
        ? `lies in an ArrayBuffer of ${bytes.buffer.byteLength} bytes, fewer than ${minimumBytes}`
        : undefined
    },
    release: () => {
      releaseValues([...values])
      device?.release()
      releaseSession(session)
    }
  }
}

const table = (addresses: ReadonlyArray<number>): BigUint64Array => {
  const result = new BigUint64Array(Math.max(minimumBytes / 8, addresses.length))
  addresses.forEach((address, index) => {
    result[index] = BigInt(address)
  })
  return result
}

/** The engine over the C library. Fails where koffi or the library is missing, or the pool is pinned differently. */
export const make = (options: Options = {}): Effect.Effect<Interface, EngineError> =>
  Effect.flatMap(openOnce(options), (library) => Effect.try({
    try: (): Interface => over(library, options.provider, options.machineCode),
    catch: (cause) => failure("MissingProvider", "its C library", `provider: ${options.provider?.name}`,
      `built into this library: ${library.providers.join(", ")}`, cause)
  }))

/** Models with so many bytes hold weights that are worth large pages. */
const large = 2 ** 22

/** This very file, as long as it is smaller than any weight that is handed over: a bundle need not be. */
const weightsFile = Result.getOrUndefined(Result.try(() => {
  const file = fileURLToPath(import.meta.url)
  return statSync(file).size < fewestBytes ? file : undefined
}))

const levels: Record<Optimization, number> = { off: 0, basic: 1, extended: 2, all: 99 }

const over = (library: Library, provider: Provider | undefined, machineCode = true): Interface => {
  // Fails here where it cannot be had. These options are kept, and with them the device, until the process ends.
  if (provider !== undefined) library.optionsWith(levels.all, provider)
  const load = (
    model: Uint8Array, level: Optimization, handed: ReadonlyArray<Handed>, onHost?: ReadonlySet<string>,
    container?: number, domain?: number
  ): Effect.Effect<number, EngineError> => {
    if (provider === undefined && handed.length === 0 && domain === undefined) {
      return loadModel(library, model, library.options[level])
    }
    const handOver = (options: number) => Effect.try({
      try: () => {
        if (weightsFile !== undefined && handed.length > 0) library.handOver(options, dirname(weightsFile), handed)
        if (domain !== undefined) library.addDomain(options, domain)
      },
      catch: (cause) => failure("BadModel", "createSession", cause)
    })
    return Effect.acquireUseRelease(
      Effect.sync(() => library.optionsWith(levels[level], provider, onHost)),
      (options) => Effect.andThen(handOver(options), loadModel(library, model, options, container)),
      (options) => Effect.sync(() => library.releaseOptions(options))
    )
  }
  const hand = (name: string, buffer: Buffer): Effect.Effect<Handed, EngineError, Scope.Scope> => Effect.acquireRelease(
    Effect.try({
      try: () => ({ name, buffer, tensor: library.createTensor(buffer, library.addressOf(buffer.bytes)) }),
      catch: (cause) => failure("BadBuffer", "createSession", cause)
    }),
    ({ tensor }) => Effect.sync(() => library.releaseValue(tensor))
  )
  const domainOf = (operators: ReadonlyArray<MachineOperator>): Effect.Effect<number, EngineError, Scope.Scope> =>
    Effect.map(Effect.acquireRelease(
      Effect.try({
        try: () => {
          if (library.makeDomain === undefined) throw new Error("machine code does not run here")
          return library.makeDomain(operators)
        },
        catch: (cause) => failure("BadModel", "createSession", cause)
      }),
      ({ release }) => Effect.sync(release)
    ), ({ domain }) => domain)
  const containers = new Map<object, { holders: number; readonly container: number }>()
  const containerOf = (sharing: object): Effect.Effect<number, EngineError, Scope.Scope> => {
    const take = Effect.try({
      try: () => {
        const found = containers.get(sharing) ?? { holders: 0, container: library.createContainer() }
        containers.set(sharing, found)
        found.holders++
        return found.container
      },
      catch: (cause) => failure("OutOfMemory", "createSession", cause)
    })
    return Effect.acquireRelease(take, (container) => Effect.sync(() => {
      const found = containers.get(sharing)
      if (found === undefined || --found.holders > 0) return
      containers.delete(sharing)
      library.releaseContainer(container)
    }))
  }
  const runs = provider === undefined ? permits : Lock.make() // one queue of commands to a device
  return {
    name: "koffi",
    provider: provider?.name.toLowerCase() ?? "cpu",
    version: library.version,
    threads: library.threads,
    runsMachineCode: machineCode && library.makeDomain !== undefined && provider === undefined,
    providers: library.providers,
    allocate: allocate(library.addressOf, library.pages.prefer),
    ...provider === undefined && weightsFile !== undefined ? { weightsFile: basename(weightsFile) } : {},
    createSession: Effect.fnUntraced(function*(
      model, { onHost, operators = [], optimization = "all", sharing, weights = new Map<string, Buffer>() } = {}
    ) {
      // all are freed after the session
      const domain = operators.length === 0 ? undefined : yield* domainOf(operators)
      const handed = yield* Effect.forEach(weights, ([name, buffer]) => hand(name, buffer))
      const container = sharing === undefined || handed.length === 0 ? undefined : yield* containerOf(sharing)
      const session = makeSession(
        load(model, optimization, handed, onHost, container, domain).pipe(Effect.flatMap((session) => Effect.try({
          try: () => nativeSession(library, session, handed, runs, provider),
          catch: (cause) => {
            library.releaseSession(session)
            return failure("BadModel", "createSession", cause)
          }
        })))
      )
      const bytes = handed.reduce((total, { buffer }) => total + buffer.bytes.length, model.length)
      return yield* provider === undefined && bytes >= large ? library.pages.gather(session) : session
    })
  }
}

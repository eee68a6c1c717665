/**
 * Arbitraries and laws, for tests of components, backends and losses of one's own. Needs `fast-check`.
 *
 * @module
 */
export * as Arbitrary from "./Arbitrary.ts"
export * as BackendLaw from "./BackendLaw.ts"
export * as BackendLaws from "./BackendLaws.ts"
export * as CompositeCase from "./CompositeCase.ts"
export * as Computation from "./Computation.ts"
export * as ContractLaw from "./ContractLaw.ts"
export * as IndexedArbitrary from "./IndexedArbitrary.ts"
export * as LawError from "./LawError.ts"
export * as PrimitiveCase from "./PrimitiveCase.ts"
export * as ProgramArbitrary from "./ProgramArbitrary.ts"
export * as Rounding from "./Rounding.ts"
export * as TensorLaw from "./TensorLaw.ts"
export * as TextArbitrary from "./TextArbitrary.ts"
export * as TokenizerLaw from "./TokenizerLaw.ts"

/**
 * Components: a part of the model as the parameters it wants and the function over them, which a service can hold.
 *
 * A component is made of plain functions. To sit in a service its parameter type is sealed: whoever asks the service
 * may carry the parameters about, allocate and train them, but not look inside, so that a variant may have parameters
 * of its own.
 *
 * From     Cria's own.
 * Checked  test/llama/Transformer.test.ts (a variant of one's own in each service).
 *
 * @module
 */
import type { Hidden } from "../tensor/Hidden.ts"
import type { Specifications } from "../tensor/Specification.ts"
import type { Config } from "./Config.ts"

/** A part of the model with parameters `P`. */
export interface Component<P, In, Out> {
  /** The sizes of the parameters, and how they begin. */
  readonly specification: (config: Config) => Specifications<P>
  /** What the part computes. */
  readonly apply: (parameters: P, input: In, config: Config) => Out
}

/** A component whose parameters only it can open. */
export interface Sealed<In, Out> extends Component<Hidden, In, Out> {}

/** Hides the parameter type of a component: what a service holds. */
export const seal = <P, In, Out>(component: Component<P, In, Out>): Sealed<In, Out> => component as never

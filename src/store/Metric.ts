/**
 * The numbers that runs report, each described once: name, unit, how it was reduced to one number, and what it means.
 *
 * Metrics that the seed decides go to the journal, which two runs of one configuration write alike to the last bit;
 * times and rates, which differ from run to run, go to a file of their own.
 *
 * From     the names are those of TRL, verl and nanochat, which dashboards know.
 * Checked  test/store/Metric.test.ts (names are unique and well formed).
 *
 * @module
 */

/** The file of a run that holds a metric: `journal` for what the seed decides, `timing` for what the clock decides. */
export type File = "journal" | "timing"

/** What one reported number means. `reduction` says how many values became one; `healthy` what to expect of it. */
export interface Metric {
  readonly name: string
  readonly unit: string
  readonly reduction: string
  readonly definition: string
  readonly healthy?: string
  readonly file: File
}

/** A set of metrics in the order of a report; names are unique. */
export type Registry = ReadonlyArray<Metric>

/** Every metric of this library's recipes. */
export const registry = [
  {
    name: "step",
    unit: "optimizer steps",
    reduction: "count since the run began",
    definition: "updates of the parameters so far; written with every line",
    file: "journal"
  },
  {
    name: "num_tokens",
    unit: "tokens",
    reduction: "sum since the run began",
    definition: "tokens trained on so far: targets whose loss counts, padding and masked tokens left out",
    file: "journal"
  },
  {
    name: "loss",
    unit: "nats per token",
    reduction: "mean over the trained tokens of the step, all micro-batches together",
    definition: "cross-entropy −log p(token | the tokens before it) on training data, before the step's update",
    healthy: "begins near ln(vocabulary) and falls",
    file: "journal"
  },
  {
    name: "val/loss",
    unit: "nats per token",
    reduction: "mean over all tokens of the validation set",
    definition: "cross-entropy on the held-out split, after the step's update",
    healthy: "falls with loss; rising while loss falls is overfitting",
    file: "journal"
  },
  {
    name: "val/bpb",
    unit: "bits per byte",
    reduction: "sum over the validation set, divided by the bytes of its text",
    definition: "cross-entropy in bits for each UTF-8 byte, comparable between tokenizers",
    healthy: "falls; uniformly random bytes have 8",
    file: "journal"
  },
  {
    name: "grad_norm",
    unit: "1",
    reduction: "square root of the sum of squares over all parameters",
    definition: "norm of the gradient of the step's loss, before clipping",
    healthy: "below the clipping threshold after warm-up; spikes foretell divergence",
    file: "journal"
  },
  {
    name: "learning_rate",
    unit: "1",
    reduction: "the step's value",
    definition: "step size that the schedule gave the optimizer",
    file: "journal"
  },
  {
    name: "tokens_per_second",
    unit: "tokens/s",
    reduction: "tokens of the interval, divided by its seconds",
    definition: "training throughput since the line before; validation and snapshots left out",
    file: "timing"
  },
  {
    name: "mfu",
    unit: "1",
    reduction: "ratio over the interval of tokens_per_second",
    definition: "model FLOPs utilization: what the forward and backward matmuls would take at the matmul rate " +
      "measured on this machine, over the time taken",
    healthy: "at most 1; the lower it is, the more of the time goes elsewhere than into matmuls",
    file: "timing"
  }
] as const satisfies Registry

/** The name of a metric of this library's recipes. */
export type Name = (typeof registry)[number]["name"]

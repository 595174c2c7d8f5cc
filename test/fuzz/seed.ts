/** One seed for all fuzz tests of a run, printed so that a failure can be had again. */

/** Set FUZZ_SEED to the number that a failed run printed, FUZZ_RUNS for a longer run. */
export const FUZZ = {
  seed: Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31),
  numRuns: Number(process.env.FUZZ_RUNS ?? 300),
}

console.log(`FUZZ_SEED=${FUZZ.seed}`)

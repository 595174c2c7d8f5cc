/** Numbers that look drawn and are the same for the same seed. */

/** @returns numbers from 0 to below 1, by xorshift32 */
export function chance(seed: number): () => number {
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

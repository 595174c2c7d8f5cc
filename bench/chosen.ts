/** What a run is asked for by names in the environment: workloads and servers. */

/** Of a variable, separated by commas. */
export const namesIn = (variable: string): string[] =>
  (process.env[variable] ?? '').split(',').flatMap((word) => word.trim() || [])

/** A name that is none would silently measure nothing. */
export class UnknownName extends Error {}

/**
 * Those that a variable names, in their own order; all of them when it names none.
 * @param isNamed whether a word means this one; a word may mean several
 * @throws UnknownName for a word that means none
 */
export function chooseNamed<T extends { readonly name: string }>(
  variable: string,
  all: readonly T[],
  isNamed: (name: string, word: string) => boolean = (name, word) => name === word,
): T[] {
  const words = namesIn(variable)
  const unknown = words.find((word) => !all.some(({ name }) => isNamed(name, word)))
  if (unknown !== undefined) {
    const known = all.map(({ name }) => name).join(', ')
    throw new UnknownName(`${variable}: ${unknown} is none of ${known}`)
  }
  return all.filter(({ name }) => words.length === 0 || words.some((word) => isNamed(name, word)))
}

/** Which languages there are, and which one a client means: RFC 4647 §3.4, as RFC 6856 §3 asks. */
import { ENGLISH } from './english.ts'
import { GERMAN } from './german.ts'
import type { Words } from './words.ts'

/** A language is one file beside this, and its row here. */
export const LANGUAGES: readonly Words[] = [ENGLISH, GERMAN]

/**
 * Lookup: `de-AT` is answered in German, `en-GB-oed` in English. `*` is what the server likes best.
 * @param range a basic language range in any case, or what a peer took for one
 * @returns undefined: no language of ours comes near it
 */
export function findLanguage(range: string): Words | undefined {
  if (range === '*') return ENGLISH
  const subtags = range.toLowerCase().split('-')
  for (let count = subtags.length; count > 0; count -= 1) {
    const tag = subtags.slice(0, count).join('-')
    const found = LANGUAGES.find((words) => words.tag === tag)
    if (found !== undefined) return found
  }
  return undefined
}

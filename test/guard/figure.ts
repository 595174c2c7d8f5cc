/** How a guard says what it has counted. */
import { expect } from 'vitest'
import { BOUNDS } from './bounds.ts'

/** Prints the names of statements that were executed. */
export function say(what: string, statements: readonly string[]): void {
  process.stdout.write(`guard: ${what}: ${statements.join(', ')}\n`)
}

/** Prints the figure, and fails if it is above its bound; the guards after it still say theirs. */
export function expectWithin(name: keyof typeof BOUNDS, figure: number): void {
  const shown = Math.round(figure * 100) / 100
  process.stdout.write(`guard: ${name}: ${shown} (at most ${BOUNDS[name]})\n`)
  expect.soft(shown, name).toBeLessThanOrEqual(BOUNDS[name])
}

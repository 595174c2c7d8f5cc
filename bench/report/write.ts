/** Puts what a run has found into bench/results/, as JSON, as a page and as a picture. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { plotBars } from './plot.ts'
import type { Results } from './results.ts'
import { formatResults } from './table.ts'
import { judge } from './targets.ts'

/** @returns the page, for the terminal */
export function writeResults(
  directory: string,
  name: string,
  title: string,
  results: Results,
): string {
  const base = fileBase(name, results.date)
  const bars = judge(results.rows).flatMap(({ target, bound, margin }) =>
    margin === undefined ? [] : [{ label: `${target} ${bound}`, value: margin }],
  )
  const picture = bars.length === 0 ? undefined : `${base}.svg`
  const page = formatResults(title, results, picture)
  writeFiles(directory, base, {
    json: `${JSON.stringify(results, null, 2)}\n`,
    md: page,
    ...(picture && { svg: plotBars('Measured by target; beyond 1 is beyond the bound', bars) }),
  })
  return page
}

/** `peers-2026-11-23` */
export const fileBase = (name: string, date: string): string => `${name}-${date.slice(0, 10)}`

/** @param texts by the ending of the file's name */
export function writeFiles(
  directory: string,
  base: string,
  texts: Readonly<Record<string, string>>,
): void {
  mkdirSync(directory, { recursive: true })
  for (const [ending, text] of Object.entries(texts))
    writeFileSync(join(directory, `${base}.${ending}`), text)
}

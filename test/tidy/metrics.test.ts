/** Each metric is defined once, counted somewhere, and explained to the operator. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const ROOT = join(import.meta.dirname, '../..')
const TABLE = 'src/base/metrics.ts'
const textOf = (name: string): string => readFileSync(join(ROOT, name), 'utf8')

const sources = execFileSync('git', ['ls-files', '-co', '--exclude-standard', 'src'], {
  cwd: ROOT,
  encoding: 'utf8',
})
  .split('\n')
  .filter((name) => name.endsWith('.ts') && name !== TABLE && existsSync(join(ROOT, name)))

const table = textOf(TABLE)
const names = [...table.matchAll(/'(popgres_\w+)'/g)]
  .map(([, name = '']) => name)
  .filter((name) => !name.endsWith('_'))
const keys = [...table.matchAll(/^ {2}(\w+): (?:counter|gauge|read\w+|histogram)\(/gm)].map(
  ([, key = '']) => key,
)

test('each is defined once, and nowhere else is one named', () => {
  expect(keys.length).toBeGreaterThan(30)
  expect(names).toHaveLength(keys.length)
  expect(new Set(names).size).toBe(names.length)
  const elsewhere = sources.filter((file) => names.some((name) => textOf(file).includes(name)))
  expect(elsewhere).toEqual([])
})

test('each is counted somewhere in src', () => {
  const code = sources.map(textOf).join('\n')
  expect(keys.filter((key) => !new RegExp(`METRICS\\.${key}\\b`).test(code))).toEqual([])
})

test('each is explained in docs/monitoring.md, and no other', () => {
  const page = textOf('docs/monitoring.md')
  const rows = page.split('\n').filter((line) => line.startsWith('| `popgres_'))
  const explained = rows.flatMap((row) =>
    [...(row.split('|')[1] ?? '').matchAll(/`(popgres_\w+)`/g)].map(([, name = '']) => name),
  )
  expect(explained.sort()).toEqual([...names].sort())
})

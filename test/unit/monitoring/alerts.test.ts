/** The alert rules: about what there is, explained, and set off by what they are for. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { unknownIn } from './names.ts'
import { describePromtool, promtool } from './promtool.ts'

const ROOT = join(import.meta.dirname, '../../..')
const RULES = join(ROOT, 'monitoring/alerts.yml')
const TESTS = join(import.meta.dirname, 'alerts.promtool.yml')

const rules = readFileSync(RULES, 'utf8')
const alerts = [...rules.matchAll(/- alert: (\w+)\n([\s\S]*?)(?=\n\n|$)/g)].map(
  ([, name = '', body = '']) => ({ name, body }),
)

test('every series and label is one that a node tells', () => {
  expect(alerts.length).toBeGreaterThan(15)
  expect(alerts.flatMap(({ body }) => unknownIn(body))).toEqual([])
})

test('each says how urgent it is, and where to read what to do', () => {
  const page = readFileSync(join(ROOT, 'docs/monitoring.md'), 'utf8')
  const headings = [...page.matchAll(/^### (.+)$/gm)].map(([, text = '']) => text)
  const lacking = alerts.filter(
    ({ name, body }) =>
      !/severity: (page|ticket)/.test(body) ||
      !body.includes(`runbook: docs/monitoring.md#${name.toLowerCase()}`) ||
      !headings.includes(name),
  )
  expect(lacking.map(({ name }) => name)).toEqual([])
  const known = new Set(alerts.map(({ name }) => name))
  expect(headings.filter((text) => text.startsWith('Popgres') && !known.has(text))).toEqual([])
})

test('each is set off by a case of its own', () => {
  const cases = readFileSync(TESTS, 'utf8')
  const lacking = alerts.filter(({ name }) => !cases.includes(`- name: "${name}: `))
  expect(lacking.map(({ name }) => name)).toEqual([])
})

describePromtool('promtool', () => {
  test('reads the rules', () => {
    expect(promtool('check', 'rules', RULES)).toContain('SUCCESS')
  })

  test('sets off each alert by its case, and none on a day that is well', () => {
    expect(promtool('test', 'rules', TESTS)).toContain('SUCCESS')
  })
})

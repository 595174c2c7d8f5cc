/** The dashboard shows what there is: each series and label of its expressions is told by a node. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { METRICS } from '../../../src/base/metrics.ts'
import { unknownIn } from './names.ts'
import { describePromtool, promtool } from './promtool.ts'

interface Panel {
  id: number
  type: string
  title: string
  gridPos: { x: number; y: number; w: number; h: number }
  targets?: { expr: string }[]
}

const FILE = join(import.meta.dirname, '../../../monitoring/grafana-dashboard.json')
const { panels } = JSON.parse(readFileSync(FILE, 'utf8')) as { panels: Panel[] }
const expressions = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))

test('every series and label is one that a node tells', () => {
  expect(expressions.length).toBeGreaterThan(30)
  expect(expressions.flatMap(unknownIn)).toEqual([])
})

test('every metric is on it', () => {
  const shown = expressions.join(' ')
  const names = Object.values(METRICS).map(({ name }) => name)
  expect(names.filter((name) => !new RegExp(`\\b${name}\\w*`).test(shown))).toEqual([])
})

test('panels have numbers of their own, titles, and places that do not overlap', () => {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  expect(panels.filter(({ title }) => title === '')).toEqual([])
  const cells = new Set<string>()
  for (const { gridPos } of panels) {
    expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(cells).not.toContain(`${x} ${y}`)
        cells.add(`${x} ${y}`)
      }
  }
})

describePromtool('promtool', () => {
  test('reads every expression', () => {
    const rules = expressions.map((expr, at) => {
      const text = expr.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*')
      return `      - record: panel:${at}\n        expr: ${JSON.stringify(text)}\n`
    })
    const folder = mkdtempSync(join(tmpdir(), 'popgres-dashboard-'))
    try {
      const file = join(folder, 'panels.yml')
      writeFileSync(file, `groups:\n  - name: panels\n    rules:\n${rules.join('')}`)
      expect(promtool('check', 'rules', file)).toContain('SUCCESS')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

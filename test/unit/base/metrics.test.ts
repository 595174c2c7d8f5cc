/** The metrics as a node tells them: names, labels and words are a promise to dashboards and alerts. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { METRICS, PER_WORKER, reportMetrics } from '../../../src/base/metrics.ts'
import { Distribution, Metric, Tally, whenRead } from '../../../src/base/tally.ts'

const GOLDEN = join(import.meta.dirname, '../../golden/metrics.txt')

test('names, labels and meanings are as they were', () => {
  const lines = Object.values(METRICS).map(({ name, type, labelNames, help }) => {
    const labels = [...(name.startsWith(PER_WORKER) ? ['worker'] : []), ...labelNames]
    return `${name}{${labels.join(', ')}} ${type}\n    ${help}\n`
  })
  const text = lines.sort().join('')
  if (process.env.UPDATE_GOLDEN) writeFileSync(GOLDEN, text)
  expect(text).toBe(readFileSync(GOLDEN, 'utf8'))
})

test('names follow Prometheus’ custom', () => {
  for (const { name, type, labelNames } of Object.values(METRICS)) {
    expect(name).toMatch(/^popgres_[a-z0-9]+(_[a-z0-9]+)+$/)
    expect(name.endsWith('_total'), name).toBe(type === 'counter')
    if (type === 'histogram') expect(name).toMatch(/_seconds$/)
    expect(labelNames.filter((label) => /^(worker|job|instance|le)$/.test(label))).toEqual([])
    expect(labelNames.length).toBeLessThanOrEqual(2)
  }
})

const describe = (type: 'counter' | 'gauge' | 'histogram', ...labelNames: string[]) => ({
  name: 'a_b',
  help: 'what',
  type,
  labelNames,
  isRead: false,
})

test('a metric without labels is 0 from the start, one with labels has a value for each', () => {
  const plain = new Metric(describe('counter'), () => new Tally())
  expect(plain.report().values).toEqual([{ labels: {}, value: 0 }])
  const labelled = new Metric(describe('counter', 'x', 'y'), () => new Tally())
  expect(labelled.report().values).toEqual([])
  labelled.of('1', '2').add()
  labelled.of('1', '3').add(5)
  labelled.of('1', '2').add(2)
  expect(labelled.report().values).toEqual([
    { labels: { x: '1', y: '2' }, value: 3 },
    { labels: { x: '1', y: '3' }, value: 5 },
  ])
})

test('a distribution is cumulative, and ends with all', () => {
  const metric = new Metric(describe('histogram', 'x'), () => new Distribution([1, 5]))
  for (const value of [0.5, 1, 3, 7, 70]) metric.of('y').observe(value)
  expect(metric.report().values).toEqual([
    { metricName: 'a_b_bucket', labels: { x: 'y', le: '1' }, value: 2 },
    { metricName: 'a_b_bucket', labels: { x: 'y', le: '5' }, value: 3 },
    { metricName: 'a_b_bucket', labels: { x: 'y', le: '+Inf' }, value: 5 },
    { metricName: 'a_b_sum', labels: { x: 'y' }, value: 81.5 },
    { metricName: 'a_b_count', labels: { x: 'y' }, value: 5 },
  ])
})

test('labels that somebody makes up do not fill the memory', () => {
  const metric = new Metric(describe('counter', 'x', 'y'), () => new Tally())
  for (let i = 0; i < 5_000; i++) metric.of(`made up ${i}`).add()
  const { values } = metric.report()
  expect(values).toHaveLength(401)
  expect(values.at(-1)).toEqual({ labels: { x: 'other', y: 'other' }, value: 4_600 })
})

test('failures have a zero before the first: a rate needs a first value', () => {
  const zeros = (name: string) =>
    reportMetrics()
      .find((metric) => metric.name === name)
      ?.values.filter(({ value }) => value === 0)
      .map(({ labels }) => Object.values(labels).join(' '))
  const codes = ['CONFLICT', 'IN_DOUBT', 'LOGIN_REFUSED', 'REFUSED', 'UNAVAILABLE']
  const doors = ['hot', 'bulk', 'kysely']
  expect(zeros('popgres_statement_failures_total')?.toSorted()).toEqual(
    doors.flatMap((door) => codes.map((code) => `${door} STORAGE_${code}`)).toSorted(),
  )
  expect(zeros('popgres_background_failures_total')).toHaveLength(6)
})

test('what is read is read anew each time, of all that are there', () => {
  const stop = [1, 2].map((n) => whenRead(() => METRICS.poolInUse.of('bulk').add(n)))
  const read = () =>
    reportMetrics()
      .find(({ name }) => name === 'popgres_database_pool_in_use')
      ?.values.find(({ labels }) => labels.pool === 'bulk')?.value
  expect([read(), read()]).toEqual([3, 3])
  stop[0]?.()
  expect(read()).toBe(2)
  stop[1]?.()
  expect(read()).toBeUndefined()
})

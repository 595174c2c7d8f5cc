/** The days of a run as a table, and whether the month was flat. */
import type { LinePlot } from '../report/plot.ts'
import { formatTable } from '../report/table.ts'
import { type Sizes, TABLES, type TableName } from './sizes.ts'
import type { DayCounts } from './traffic.ts'

export interface Day extends DayCounts, Sizes {
  day: number
}

export interface Run {
  /** Whose autovacuum settings. */
  name: string
  days: readonly Day[]
  vacuums: Record<TableName, number>
}

/** Days in a line of the table. */
const STEP = 3
/** Days at the beginning and at the end of the month that are compared. */
const WEEK = 7

export function formatRun({ name, days, vacuums }: Run, fillingDays: number): string {
  const shown = days.filter(({ day }) => day === 1 || day % STEP === 0)
  const head = ['day', 'delivered', 'deleted', 'expired', 'purged', 'mail', 'tables', ...TABLES]
  const rows = shown.map((day) => [
    String(day.day),
    ...[day.delivered, day.deleted, day.expired, day.purged].map((count) =>
      count.toLocaleString('en'),
    ),
    ...[day.mailOctets, day.totalOctets].map(mib),
    ...TABLES.map((table) => mib(day.tableOctets[table])),
  ])
  const table = formatTable(
    head,
    rows,
    head.map(() => true),
  )
  const month = days.filter(({ day }) => day > fillingDays)
  return `## Autovacuum settings: ${name}

MiB on disk at the end of the day, with indexes; "mail" is what the messages in maildrops and trash add up to.

${table}
${flatness(month)}

Autovacuums: ${TABLES.map((table) => `${table} ${vacuums[table] ?? 0}`).join(', ')}.
`
}

/** The first week of the month against the last. */
function flatness(month: readonly Day[]): string {
  const mean = (days: readonly Day[], of: (day: Day) => number): number =>
    days.reduce((sum, day) => sum + of(day), 0) / days.length
  const change = (of: (day: Day) => number): string => {
    const percent = (mean(month.slice(-WEEK), of) / mean(month.slice(0, WEEK), of) - 1) * 100
    return `${percent < 0 ? '−' : '+'}${Math.abs(percent).toFixed(1)} %`
  }
  const byTable = TABLES.map((table) => `${table} ${change((day) => day.tableOctets[table])}`)
  const surplus = (days: readonly Day[]): string =>
    mean(days, (day) => day.totalOctets / day.mailOctets).toFixed(3)
  return `From the month's first week to its last: mail ${change((day) => day.mailOctets)}, tables ${change((day) => day.totalOctets)}
(${byTable.join(', ')}). An octet of mail takes ${surplus(month.slice(0, WEEK))} on disk in the first, ${surplus(month.slice(-WEEK))} in the last.`
}

export function plotOf(runs: readonly Run[]): LinePlot {
  const [first] = runs
  return {
    title: 'Size of the tables by day; autovacuum settings',
    xLabel: 'simulated day',
    yLabel: 'MiB',
    lines: [
      ...runs.map(({ name, days }) => ({
        label: name,
        points: days.map(({ day, totalOctets }) => ({ x: day, y: totalOctets / 2 ** 20 })),
      })),
      {
        label: 'mail in them',
        points: (first?.days ?? []).map(({ day, mailOctets }) => ({
          x: day,
          y: mailOctets / 2 ** 20,
        })),
      },
    ],
  }
}

const mib = (octets: number): string => {
  const value = octets / 2 ** 20
  return value >= 10 ? Math.round(value).toLocaleString('en') : value.toFixed(2)
}

/** Results as Markdown: medians of the rounds, and what became of each target. */
import { type Figures, machineInWords, medianRows, type Results, type Row } from './results.ts'
import { judge, type Verdict } from './targets.ts'

/** A whole page. @param plot file name of the picture beside it */
export function formatResults(title: string, results: Results, plot?: string): string {
  const { machine, commit, date, rounds, rows } = results
  return `# Bench: ${title}

${date}, commit ${commit}, ${machineInWords(machine)}.
Medians of ${rounds} ${rounds === 1 ? 'round' : 'rounds'}, servers in turn. CPU is user and system
time, in ms for 1000 operations, of the whole process tree.

${formatTargets(results, plot)}## Measurements

${formatRows(medianRows(rows))}`
}

/** Of a partial run those alone that it measured: it was not asked for the others. */
function formatTargets({ rows, isPartial }: Results, plot: string | undefined): string {
  const verdicts = judge(rows).filter(({ measured }) => !isPartial || measured !== undefined)
  if (verdicts.length === 0) return ''
  const picture = plot === undefined ? '' : `\n![what each target came to](${plot})\n`
  return `## Targets\n\n${formatVerdicts(verdicts)}${picture}\n`
}

function formatVerdicts(verdicts: readonly Verdict[]): string {
  return formatTable(
    ['target', 'bound', 'measured', 'reached'],
    verdicts.map(({ target, bound, measured, isReached, missing }) => [
      target,
      bound,
      measured === undefined ? '–' : formatNumber(measured),
      isReached === undefined ? (missing ?? '') : isReached ? 'yes' : '**no**',
    ]),
    [false, true, true, false],
  )
}

const COLUMNS: readonly {
  name: string
  isText?: true
  of(row: Row): string | number | undefined
}[] = [
  { name: 'workload', isText: true, of: (row) => row.workload },
  { name: 'server', isText: true, of: (row) => row.server },
  { name: 'rate', of: (row) => row.rate },
  { name: 'a second', isText: true, of: (row) => row.unit },
  { name: 'CPU server', of: (row) => row.serverCpuMs },
  { name: 'CPU database', of: (row) => row.databaseCpuMs },
  { name: 'CPU generator', of: (row) => row.generatorCpuMs },
  { name: 'p50 ms', of: (row) => row.latencyMs?.p50 },
  { name: 'p99 ms', of: (row) => row.latencyMs?.p99 },
  { name: 'statements a session', of: (row) => row.statementsPerSession },
  { name: 'KiB', of: (row) => row.memoryKib },
  { name: 'further', isText: true, of: describeFurther },
]

/** @param rows one for each workload and server; a column that none fills is left out */
export function formatRows(rows: readonly Row[]): string {
  const columns = COLUMNS.filter(({ of }) => rows.some((row) => (of(row) ?? '') !== ''))
  return formatTable(
    columns.map(({ name }) => name),
    rows.map((row) => columns.map(({ of }) => formatCell(of(row)))),
    columns.map(({ isText }) => isText !== true),
  )
}

function describeFurther({ figures, note }: Row): string {
  return [...figuresInWords(figures), note ?? []].flat().join(', ')
}

const FIGURE_WORDS: Readonly<Record<keyof Figures, (value: string) => string>> = {
  loginMs: (value) => `login ${value} ms`,
  statMs: (value) => `STAT ${value} ms`,
  listMs: (value) => `LIST ${value} ms`,
  uidlMs: (value) => `UIDL ${value} ms`,
  quitMs: (value) => `QUIT ${value} ms`,
  commitMs: (value) => `commit ${value} ms`,
  statementsPerMessage: (value) => `statements a message: ${value}`,
  walOctetsPerOctet: (value) => `WAL octets an octet: ${value}`,
}

export const figuresInWords = (figures: Figures = {}): string[] =>
  Object.entries(figures).map(([name, value]) =>
    FIGURE_WORDS[name as keyof Figures](formatNumber(Number(value))),
  )

const formatCell = (value: string | number | undefined): string =>
  typeof value === 'number' ? formatNumber(value) : (value ?? '')

/** Three significant digits, or all before the point. */
export function formatNumber(value: number): string {
  if (Number.isNaN(value)) return '–'
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en')
  return String(Number(value.toPrecision(3)))
}

/** @param isNumber by column: aligned to the right */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  isNumber: readonly boolean[],
): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`
  const rule = `|${isNumber.map((right) => (right ? '---:' : '---')).join('|')}|\n`
  return `${line(head)}${rule}${rows.map(line).join('')}`
}

/**
 * What Popgres costs as the work grows: sessions, a maildrop, users, the database, and dead rows
 * that an old snapshot keeps. Everything one after the other, so that the cost of a single
 * operation is seen and not how many fit beside each other.
 *
 *   npm run bench:growth
 *
 * BENCH_GROWTH=small for a quick one; BENCH_STUDIES (names, separated by commas).
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { plotLines } from '../report/plot.ts'
import { describeMachine, machineInWords } from '../report/results.ts'
import { fileBase, writeFiles } from '../report/write.ts'
import { startPopgres } from '../servers/popgres.ts'
import { Mail } from './mail.ts'
import {
  growDatabase,
  growDeadRows,
  growMaildrop,
  growSessions,
  growUsers,
  type Sizes,
} from './studies.ts'
import { formatStudy, plotOf, Stage, type Study } from './study.ts'

const RESULTS = fileURLToPath(new URL('../../../bench/results', import.meta.url))

const FULL: Sizes = {
  sessions: [1, 10, 100, 1_000, 5_000],
  messages: [10, 1_000, 100_000, 1_000_000],
  users: [1_000, 10_000, 100_000, 1_000_000],
  databaseGb: [1, 5, 20],
  cycles: 10_000,
}
const SMALL: Sizes = {
  sessions: [1, 10, 100],
  messages: [10, 1_000, 10_000],
  users: [100, 1_000, 10_000],
  databaseGb: [0.1, 0.3],
  cycles: 1_000,
}

const STUDIES = {
  sessions: growSessions,
  maildrop: growMaildrop,
  users: growUsers,
  'dead-rows': growDeadRows,
  database: growDatabase,
}

const isSmall = process.env.BENCH_GROWTH === 'small'
const chosen = (process.env.BENCH_STUDIES ?? Object.keys(STUDIES).join(',')).split(',')
const unknown = chosen.find((name) => !(name in STUDIES))
if (unknown !== undefined)
  throw new Error(`${unknown} is none of ${Object.keys(STUDIES).join(', ')}`)

const date = new Date().toISOString()
const machine = describeMachine()
const place = mkdtempSync(join(tmpdir(), 'popgres-growth-'))
const seed = { users: 1, messagesEach: 1, messageOctets: 1_024, special: [] }
const server = await startPopgres(place, seed, 1)
const studies: Study[] = []
try {
  const stage = await Stage.open(server)
  const mail = await Mail.open(server.databaseUrl)
  for (const [name, grow] of Object.entries(STUDIES)) {
    if (!chosen.includes(name)) continue
    const startedAt = performance.now()
    const study = await grow(stage, mail, isSmall ? SMALL : FULL)
    studies.push(study)
    console.info(formatStudy(study))
    console.info(`${name}: ${Math.round((performance.now() - startedAt) / 1000)} s\n`)
  }
  await mail.close()
  await stage.close()
} finally {
  await server.stop()
  rmSync(place, { recursive: true, force: true, maxRetries: 3 })
}

const base = fileBase(isSmall ? 'growth-small' : 'growth', date)
writeFiles(RESULTS, base, {
  json: `${JSON.stringify({ machine, date, studies }, null, 2)}\n`,
  svg: plotLines(studies.map(plotOf)),
  md: `# Cost as the work grows

${date}, ${machineInWords(machine)}. One operation at a time; ms is a median, CPU is user and system
time of the whole process tree, of one operation.

![CPU of an operation as the work grows](${base}.svg)

${studies.map(formatStudy).join('\n')}`,
})
console.info(`bench/results/${base}.md`)

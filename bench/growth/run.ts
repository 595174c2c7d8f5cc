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
import { chooseNamed, namesIn, UnknownName } from '../chosen.ts'
import { plotLines } from '../report/plot.ts'
import { describeCommit, describeMachine, machineInWords } from '../report/results.ts'
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

const STUDIES = [
  { name: 'sessions', grow: growSessions },
  { name: 'maildrop', grow: growMaildrop },
  { name: 'users', grow: growUsers },
  { name: 'dead-rows', grow: growDeadRows },
  { name: 'database', grow: growDatabase },
]

function chooseStudies(): typeof STUDIES {
  try {
    return chooseNamed('BENCH_STUDIES', STUDIES)
  } catch (error) {
    if (!(error instanceof UnknownName)) throw error
    console.error(error.message)
    process.exit(1)
  }
}

const isSmall = process.env.BENCH_GROWTH === 'small'
const chosen = chooseStudies()
const date = new Date().toISOString()
const machine = describeMachine()
const commit = describeCommit()
const place = mkdtempSync(join(tmpdir(), 'popgres-growth-'))
const seed = { users: 1, messagesEach: 1, messageOctets: 1_024, special: [] }
const server = await startPopgres(place, seed, 1)
const studies: Study[] = []
try {
  const stage = await Stage.open(server)
  const mail = await Mail.open(server.databaseUrl)
  for (const { name, grow } of chosen) {
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

// A run of some studies has a page of its own.
const kind = ['growth', ...(isSmall ? ['small'] : []), ...namesIn('BENCH_STUDIES')].join('-')
const base = fileBase(kind, date)
writeFiles(RESULTS, base, {
  json: `${JSON.stringify({ machine, commit, date, studies }, null, 2)}\n`,
  svg: plotLines(studies.map(plotOf)),
  md: `# Cost as the work grows

${date}, commit ${commit}, ${machineInWords(machine)}. One operation at a time; ms is a median, CPU is user and system
time of the whole process tree, of one operation.

![CPU of an operation as the work grows](${base}.svg)

${studies.map(formatStudy).join('\n')}`,
})
console.info(`bench/results/${base}.md`)

/**
 * Does room come back? Eight weeks of mail in minutes: four to fill up and settle (two that mail is
 * kept, one that the trash is, one more), then a month that should change nothing. Sizes of the
 * tables at the end of each day, with the autovacuum settings of the migrations and, beside them,
 * with PostgreSQL's own. Only autovacuum cleans up; a day takes seconds, so it looks each second
 * instead of each minute, and does not pause in its work, which would take hours of such a day.
 *
 *   npm run bench:space
 *
 * BENCH_SPACE=small for a quick one; BENCH_SEED.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { Secret } from '../../src/base/secret.ts'
import { openDatabase } from '../../src/storage/postgres/database.ts'
import { plotLines } from '../report/plot.ts'
import { describeCommit, describeMachine, machineInWords } from '../report/results.ts'
import { fileBase, writeFiles } from '../report/write.ts'
import { startPopgres } from '../servers/popgres.ts'
import { makeClock, passHours } from './clock.ts'
import { type Day, formatRun, plotOf, type Run } from './report.ts'
import { readSizes, readVacuums } from './sizes.ts'
import { KEPT_DAYS, TRASH_DAYS, Traffic } from './traffic.ts'

const PROJECT = fileURLToPath(new URL('../../..', import.meta.url))
const RESULTS = join(PROJECT, 'bench/results')

const isSmall = process.env.BENCH_SPACE === 'small'
const USERS = isSmall ? 20 : 100
const FILLING_DAYS = KEPT_DAYS + 2 * TRASH_DAYS
const DAYS = FILLING_DAYS + 30
/** So that autovacuum looks more than once a day, however fast the machine is. */
const DAY_MS = isSmall ? 0 : 2_300
const SEED = Number(process.env.BENCH_SEED ?? 20_261_123)

/** What the migrations say of autovacuum is taken back. */
const RESET = `do $$
declare
  name text;
begin
  for name in select c.relname from pg_class c
    where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
      and c.reloptions::text like '%autovacuum%'
  loop
    execute format('alter table %I reset (autovacuum_vacuum_scale_factor,
      autovacuum_vacuum_cost_delay)', name);
  end loop;
end $$`

async function run(serverUrl: string, name: string, isReset: boolean): Promise<Run> {
  const url = new URL(serverUrl)
  await command(serverUrl, `create database ${name}`)
  url.pathname = `/${name}`
  execFileSync(process.execPath, [join(PROJECT, 'dist/main.js'), 'migrate'], {
    env: { PATH: process.env.PATH, DATABASE_URL: url.toString() },
  })
  const client = new pg.Client(url.toString())
  await client.connect()
  if (isReset) await client.query(RESET)
  await makeClock(client, name)
  const db = openDatabase({
    url: new Secret(url.toString()),
    applicationName: 'bench space',
    connectionsMax: 16,
  })
  const days: Day[] = []
  try {
    const traffic = await Traffic.open(db, SEED, USERS)
    for (let day = 1; day <= DAYS; day++) {
      const morning = performance.now()
      const counts = await traffic.passDay((hours) => passHours(client, hours))
      await delay(Math.max(0, morning + DAY_MS - performance.now()))
      days.push({ day, ...counts, ...(await readSizes(client)) })
      const { delivered, purged, totalOctets, mailOctets } = days.at(-1) as Day
      const sizes = `${mib(mailOctets)} MiB of mail in ${mib(totalOctets)} MiB`
      console.info(`${name} day ${day}: ${delivered} delivered, ${purged} purged, ${sizes}`)
    }
    const vacuums = await readVacuums(client)
    return { name: isReset ? "PostgreSQL's own" : 'of the migrations', days, vacuums }
  } finally {
    await db.close()
    await client.end()
  }
}

async function command(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  for (const statement of statements) await client.query(statement)
  await client.end()
}

const mib = (octets: number): number => Math.round(octets / 2 ** 20)

const startedAt = performance.now()
const date = new Date().toISOString()
const place = mkdtempSync(join(tmpdir(), 'popgres-space-'))
const seed = { users: 1, messagesEach: 1, messageOctets: 1_024, special: [] }
const server = await startPopgres(place, seed, 1)
const runs: Run[] = []
try {
  await command(
    server.databaseUrl,
    "alter system set autovacuum_naptime = '1s'",
    'alter system set autovacuum_vacuum_cost_delay = 0',
    // What is measured is room, not how fast a disk is.
    'alter system set synchronous_commit = off',
    'select pg_reload_conf()',
  )
  runs.push(await run(server.databaseUrl, 'space_settings', false))
  runs.push(await run(server.databaseUrl, 'space_defaults', true))
} finally {
  await server.stop()
  rmSync(place, { recursive: true, force: true, maxRetries: 3 })
}

const base = fileBase(isSmall ? 'space-small' : 'space', date)
const machine = machineInWords(describeMachine())
const seconds = Math.round((performance.now() - startedAt) / 1_000)
const page = `# Room for mail that comes and goes

${date}, commit ${describeCommit()}, ${machine}; ${seconds} s, seed ${SEED}.
${USERS} users, ${DAYS} simulated days by a clock of the database's that is put forward; no row is rewritten to age it.
Six of ten clients delete what they fetch, two or three leave it for ${KEPT_DAYS} days, of the others it expires after
${KEPT_DAYS}; the trash is kept for ${TRASH_DAYS}. The first ${FILLING_DAYS} days fill up and settle, the ${DAYS - FILLING_DAYS} after them are the month. Only autovacuum cleans up; a day
passes in seconds, so it looks each second instead of each minute (three times a day instead of 1,440) and makes no pauses.
\`session_log\` has a row for each session that deleted something, and nothing takes one away here.

![Size of the database by day](${base}.svg)

${runs.map((each) => formatRun(each, FILLING_DAYS)).join('\n')}`
writeFiles(RESULTS, base, { md: page, svg: plotLines([plotOf(runs)]) })
console.info(page)

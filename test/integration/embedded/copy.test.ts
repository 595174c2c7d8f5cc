/** The backup of docs/operating.md that needs no pg_dump: a copy, started by the bundled pg_ctl. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { resolveAccount, runAs } from '../../../src/cli/embedded/account.ts'
import { prepareBinaries } from '../../../src/cli/embedded/binaries.ts'
import { type Embedded, startEmbedded } from '../../../src/cli/embedded-postgres.ts'
import { openTestConnection } from '../../support/postgres.ts'

const log = openLog('fatal')
let root: string
let living: Embedded | undefined

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'popgres-copy-'))
  chmodSync(root, 0o755)
})
afterEach(async () => {
  await living?.stop()
  rmSync(root, { recursive: true, force: true, maxRetries: 3 })
})

async function ask(url: string, text: string): Promise<string[]> {
  const db = openTestConnection(url)
  try {
    const rows = await db.bulk({ name: `copy_${text.length}`, text }, [])
    return rows.map(([field]) => String(field))
  } finally {
    await db.close()
  }
}

test('a copy of a data directory that was stopped is served beside the living one', async () => {
  const dataDir = join(root, 'data')
  const copy = join(root, 'copy')
  living = await startEmbedded({ dataDir, log, isDurable: false })
  await ask(living.url.reveal().toString(), "create table marks as select 'before' as mark")
  await living.stop()
  // As root keeps owners, which node does not: what `cp -a` is for.
  expect(spawnSync('cp', ['-a', dataDir, copy]).status).toBe(0)
  living = await startEmbedded({ dataDir, log, isDurable: false })
  const url = living.url.reveal().toString()
  await ask(url, "update marks set mark = 'after'")

  const pgData = join(copy, 'postgres')
  const account = resolveAccount(pgData)
  // Of node_modules, or the copy of them that the server has made where an account may not go there.
  const programs = dirname(prepareBinaries(dataDir, account, log).postgres)
  const control = (...args: string[]) =>
    runAs(account, join(programs, 'pg_ctl'), ['-D', pgData, '-w', ...args])
  const options = `-p 5433 -k ${pgData} -c listen_addresses=''`
  const started = control('-l', join(pgData, 'copy.log'), '-o', options, 'start')
  expect(started.status, started.output).toBe(0)
  try {
    const password = readFileSync(join(copy, 'database-password'), 'utf8').trim()
    const copyUrl = `postgres://popgres:${password}@${encodeURIComponent(pgData)}:5433/popgres`
    expect(await ask(copyUrl, 'select mark from marks')).toEqual(['before'])
    expect(await ask(url, 'select mark from marks')).toEqual(['after'])
  } finally {
    expect(control('-m', 'fast', 'stop').status).toBe(0)
  }
})

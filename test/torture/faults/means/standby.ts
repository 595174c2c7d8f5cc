/**
 * A synchronous streaming standby of a running PostgreSQL, made with SQL and a copy of its data
 * directory (the embedded one has no pg_basebackup): what the primary has acknowledged is on the
 * standby's disk. And its promotion, when the primary is no more.
 */
import { execFile } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { appendFileSync, chownSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { pgDataOf } from '../../../../src/cli/embedded/home.ts'
import type { TorturePostgres } from '../../fault.ts'
import { PostgresServer } from '../../postgres.ts'
import { until } from './until.ts'

/** Of a copy: what belongs to the running primary. */
const NOT_COPIED = ['postmaster.pid', 'postmaster.opts', 'pg_replslot', 'pg_stat_tmp', 'pg_notify']

/**
 * From when it resolves on, no commit is acknowledged that the standby has not written.
 * @param home for the copy; must not exist yet, and PostgreSQL's account can go there
 * @returns the standby, running
 */
export async function startStandby(
  primary: TorturePostgres,
  home: string,
): Promise<PostgresServer> {
  const name = `standby_${randomInt(1e9)}`
  // What it has not seen yet stays on the primary.
  await primary.query('select pg_create_physical_replication_slot($1, true)', [name])
  await copyData(primary, home)
  const url = new URL(primary.url)
  const pgData = pgDataOf(home)
  const conninfo = [
    `host=127.0.0.1 port=${primary.port} user=${url.username}`,
    `password=${decodeURIComponent(url.password)} application_name=${name}`,
  ].join(' ')
  appendFileSync(
    join(pgData, 'postgresql.auto.conf'),
    `primary_conninfo = '${conninfo}'\nprimary_slot_name = '${name}'\nhot_standby = on\n`,
  )
  makeOwnFile(pgData, 'standby.signal', '')
  // Below 32768 no outgoing connection takes it.
  url.port = String(randomInt(15_000, 32_000))
  const standby = new PostgresServer(home, url.toString(), primary.parameters)
  await standby.start()
  try {
    await primary.query(`alter system set synchronous_standby_names = '${name}'`)
    await primary.query('select pg_reload_conf()')
    const isSynchronous = `application_name = '${name}' and sync_state = 'sync'`
    await until('the standby is synchronous', async () => {
      const rows = await primary.query(`select from pg_stat_replication where ${isSynchronous}`)
      return rows.length === 1
    })
    return standby
  } catch (error) {
    await standby.stop()
    throw error
  }
}

/** It has taken writes when this resolves; nothing waits for a standby of its own. */
export async function promote(standby: TorturePostgres): Promise<void> {
  const [row] = await standby.query('select pg_promote(true, 60) as done')
  if (row?.done !== true) throw new Error('the standby was not promoted')
  await standby.query('alter system reset all')
  await standby.query('select pg_reload_conf()')
}

/** From when it resolves on, nothing reaches the standby, and no commit on the primary ends. */
export async function separate(primary: TorturePostgres, standby: TorturePostgres): Promise<void> {
  await standby.query(`alter system set primary_conninfo = ''`)
  await standby.query('select pg_reload_conf()')
  await until('the standby is separated', async () => {
    return (await primary.query('select from pg_stat_replication')).length === 0
  })
}

/** Commits do not wait for a standby any more. */
export async function forgetStandbys(primary: TorturePostgres): Promise<void> {
  await primary.query('alter system reset synchronous_standby_names')
  await primary.query('select pg_reload_conf()')
  await primary.query('select pg_drop_replication_slot(slot_name) from pg_replication_slots')
}

async function copyData(primary: TorturePostgres, home: string): Promise<void> {
  // Of one connection from start to stop.
  const backup = new pg.Client({ connectionString: primary.url })
  await backup.connect()
  try {
    await backup.query("select pg_backup_start('standby', true)")
    mkdirSync(home, { mode: 0o755 })
    await copyDirectory(primary.pgData, pgDataOf(home))
    const { rows } = await backup.query('select labelfile from pg_backup_stop(false)')
    makeOwnFile(pgDataOf(home), 'backup_label', rows[0].labelfile)
  } finally {
    await backup.end()
  }
}

/** Files may go while it runs, of sorts and unlogged tables: what the copy lacks, the WAL brings. */
async function copyDirectory(from: string, to: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    execFile('cp', ['-a', from, to], (error, _, stderr) => {
      const isOther = (line: string): boolean => !/^$|No such file/.test(line)
      if (error === null || !stderr.split('\n').some(isOther)) resolve()
      else reject(new Error(`no copy of the data directory: ${stderr}`))
    })
  })
  for (const name of NOT_COPIED) {
    const path = join(to, name)
    const isDirectory = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
    rmSync(path, { recursive: true, force: true })
    if (!isDirectory) continue
    mkdirSync(path, { mode: 0o700 })
    handOver(path, to)
  }
}

function makeOwnFile(pgData: string, name: string, text: string): void {
  const path = join(pgData, name)
  writeFileSync(path, text, { mode: 0o600 })
  handOver(path, pgData)
}

/** To PostgreSQL's account. */
function handOver(path: string, pgData: string): void {
  const { uid, gid } = statSync(pgData)
  if (process.getuid?.() === 0) chownSync(path, uid, gid)
}

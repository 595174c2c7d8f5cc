/**
 * Before the tests of a project: one PostgreSQL for all of them, with a migrated template database.
 * It is the embedded one in a temporary directory, or the server that POPGRES_TEST_DATABASE_URL
 * names (any database on it, a role that may create databases and roles).
 */
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { openLog } from '../../src/base/log.ts'
import { Secret } from '../../src/base/secret.ts'
import { stopOrphan } from '../../src/cli/embedded/postmaster.ts'
import { isAlive } from '../../src/cli/embedded/processes.ts'
import { startEmbedded } from '../../src/cli/embedded-postgres.ts'
import { migrate } from '../../src/storage/migrator.ts'
import { openDatabase } from '../../src/storage/postgres/database.ts'
import { grantServing, setServingDefaults } from '../../src/storage/serving-role.ts'
import { isPooled, type PgBouncer, startPgBouncer } from './pgbouncer.ts'

declare module 'vitest' {
  export interface ProvidedContext {
    /** Of the server's maintenance database. */
    serverUrl: string
    templateName: string
    /** Of PgBouncer before that server; undefined: there is none. */
    poolerPort: number | undefined
  }
}

/** What nodes in tests log in as: not the owner of the tables. */
export const SERVING_ROLE = 'popgres_test_serve'
export const MAKE_SERVING_ROLE = `do $$ begin
  create role ${SERVING_ROLE} login password '${SERVING_ROLE}';
exception when duplicate_object then null; end $$`

const PREFIX = 'popgres-test-'
const log = openLog('error')

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { url, stop } = await openServer()
  const templateName = `popgres_template_${process.pid}_${project.name.replace(/\W/g, '_')}`
  let pooler: PgBouncer | undefined
  try {
    await makeTemplate(url, templateName)
    if (isPooled) pooler = await startPgBouncer(url)
  } catch (error) {
    await stop()
    throw error
  }
  project.provide('serverUrl', url)
  project.provide('templateName', templateName)
  project.provide('poolerPort', pooler?.port)
  return async () => {
    await pooler?.stop()
    if (isForeign()) await onServer(url, `drop database if exists ${templateName} with (force)`)
    await stop()
  }
}

const isForeign = (): boolean => process.env.POPGRES_TEST_DATABASE_URL !== undefined

async function openServer(): Promise<{ url: string; stop: () => Promise<void> }> {
  const foreign = process.env.POPGRES_TEST_DATABASE_URL
  if (foreign !== undefined) return { url: foreign, stop: async () => {} }
  await removeLeftOver()
  const directory = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`))
  chmodSync(directory, 0o755) // as root, PostgreSQL's account has to get in
  const embedded = await startEmbedded({
    dataDir: directory,
    log,
    connectionsMax: 400,
    isDurable: false,
  })
  return {
    url: embedded.url.reveal().toString(),
    stop: async () => {
      await embedded.stop()
      rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
    },
  }
}

/** Of a run that was killed: its PostgreSQL would run until the machine goes down. */
async function removeLeftOver(): Promise<void> {
  for (const name of readdirSync(tmpdir())) {
    const pid = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1]
    if (pid === undefined || isAlive(Number(pid))) continue
    const directory = join(tmpdir(), name)
    try {
      await stopOrphan(directory, log)
      rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
    } catch {
      // Another user's.
    }
  }
}

async function makeTemplate(url: string, name: string): Promise<void> {
  await onServer(url, `create database ${name}`)
  const db = openDatabase({
    url: new Secret(databaseUrl(url, name)),
    applicationName: 'popgres test',
    connectionsMax: 2,
  })
  try {
    await migrate(db, log)
    await onServer(url, MAKE_SERVING_ROLE)
    await grantServing(db, SERVING_ROLE)
    await setServingDefaults(db, SERVING_ROLE)
  } finally {
    await db.close()
  }
}

export async function onServer(url: string, statement: string): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}

export function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return url.toString()
}

/** The same database as a node reaches it: through PgBouncer, if there is one. */
export function reachedUrl(url: string, poolerPort: number | undefined): string {
  if (poolerPort === undefined) return url
  const reached = new URL(url)
  reached.hostname = '127.0.0.1' // the server may be reached by a Unix socket
  reached.port = String(poolerPort)
  return reached.toString()
}

/** The same database as a node has it. */
export function servingUrl(ownerUrl: string): string {
  const url = new URL(ownerUrl)
  url.username = SERVING_ROLE
  url.password = SERVING_ROLE
  return url.toString()
}

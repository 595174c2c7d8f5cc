/**
 * What every command needs: the environment, the status to end with, and the database. Commands
 * that manage use DATABASE_URL, or else the embedded PostgreSQL of a server that runs in this
 * directory; they never start one.
 */
import { readFileSync } from 'node:fs'
import { refused } from '../admin/refusal.ts'
import type { Keyring } from '../base/keyring.ts'
import { type Log, openLog } from '../base/log.ts'
import type { Secret } from '../base/secret.ts'
import { parseSettings, type Settings } from '../base/settings.ts'
import { checkSchema } from '../storage/migrator.ts'
import { type Database, openDatabase } from '../storage/postgres/database.ts'
import { findEmbedded } from './embedded-postgres.ts'
import { tellOfSilence } from './progress.ts'

export interface CommandContext {
  readonly env: NodeJS.ProcessEnv
  /** As it is later, for a server, which reads it anew. */
  readonly readEnv?: () => NodeJS.ProcessEnv
  /** 0 done, 1 failed, 2 wrong usage. */
  status: number
}

export interface Link {
  db: Database
  settings: Settings
  /** POPGRES_SECRET_KEY, or the one of the embedded mode. */
  keyring: Keyring | undefined
  log: Log
}

/** Two: one for what runs, one for what it asks meanwhile. */
const CONNECTIONS_MAX = 2

/** The version in package.json, which lies two folders above both src/cli and dist/cli. */
export function readVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

/** Runs `work` on the database and closes it, even if the schema is not there yet. */
export async function withBareDatabase<T>(
  context: CommandContext,
  work: (link: Link) => Promise<T>,
): Promise<T> {
  const settings = parseSettings(context.env)
  const { url, keyring } = await findDatabase(settings)
  const log = openLog(settings.POPGRES_LOG_LEVEL)
  const connectionsMax = CONNECTIONS_MAX
  const db = openDatabase({ url, applicationName: 'popgres admin', connectionsMax })
  const stopTelling = tellOfSilence()
  try {
    return await work({ db, settings, keyring, log })
  } finally {
    stopTelling()
    await db.close()
  }
}

/** Runs `work` on a database whose schema fits this version, and closes it. */
export function withDatabase<T>(
  context: CommandContext,
  work: (link: Link) => Promise<T>,
): Promise<T> {
  return withBareDatabase(context, async (link) => {
    await checkSchema(link.db, readVersion())
    return work(link)
  })
}

async function findDatabase(
  settings: Settings,
): Promise<{ url: Secret; keyring: Keyring | undefined }> {
  const { DATABASE_URL: url, POPGRES_SECRET_KEY: keyring, POPGRES_DATA_DIR: dataDir } = settings
  if (url !== undefined) return { url, keyring }
  const found = await findEmbedded({ dataDir })
  if (found === undefined)
    throw refused(
      'no database: start the server here with "npm start", or set DATABASE_URL to its PostgreSQL',
    )
  return { url: found.url, keyring: keyring ?? found.keyring }
}

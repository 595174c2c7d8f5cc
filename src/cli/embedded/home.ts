/**
 * The home: the directory that holds everything of one embedded PostgreSQL. It is POPGRES_DATA_DIR
 * itself, unless that lies where PostgreSQL's account cannot go (root's clone under /root); then it
 * is a directory below /var/lib/popgres, named by a hash of POPGRES_DATA_DIR, and a note there says
 * so. Once chosen it stays: the note, or data already in place, decides before reachability does.
 *
 *   postgres/           PostgreSQL's data directory (owned by its account)
 *   postgres.log        what PostgreSQL says
 *   database-password   of the superuser `popgres`
 *   secret-key          encrypts APOP secrets, if POPGRES_SECRET_KEY is not set
 *   first-start         there until the demo domain was made
 *   supervisor.lock     the process that serves from here
 */
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { type Account, canEnter, isRoot, resolveAccount } from './account.ts'
import { checkOnlyRootWrites, readOwnFile, replaceOwnFile } from './private-files.ts'

const ELSEWHERE = '/var/lib/popgres'
const NOTE = 'where-the-data-is.txt'

/** Paths in a home. */
export const pgDataOf = (home: string): string => join(home, 'postgres')
export const serverLogOf = (home: string): string => join(home, 'postgres.log')
export const passwordFileOf = (home: string): string => join(home, 'database-password')
export const secretKeyFileOf = (home: string): string => join(home, 'secret-key')
export const firstStartFileOf = (home: string): string => join(home, 'first-start')
export const lockFileOf = (home: string): string => join(home, 'supervisor.lock')

/**
 * Makes the data directory and chooses the home.
 * @throws {Failure} EMBEDDED_POSTGRES if the directory cannot be made or used, or where this
 *   process is root and others could write to it
 */
export function openHome(dataDir: string, log: Log): { home: string; account: Account } {
  try {
    makeTrustedDirectory(dataDir)
    const home = findHome(dataDir)
    if (home !== undefined) {
      checkOnlyRootWrites(home)
      const account = resolveAccount(existsSync(pgDataOf(home)) ? pgDataOf(home) : undefined)
      if (home !== dataDir) log.info({ home, dataDir }, 'the data of this directory is elsewhere')
      if (canEnter(account, home)) return { home, account }
      throw new Failure(
        'EMBEDDED_POSTGRES',
        `the data in ${home} cannot be reached by the account that owns it (${account.name}):` +
          ' give the directories above it the x permission, or move POPGRES_DATA_DIR',
      )
    }
    const account = resolveAccount(undefined)
    if (canEnter(account, dataDir)) return { home: dataDir, account }
    return { home: moveElsewhere(dataDir, account, log), account }
  } catch (error) {
    if (error instanceof Failure) throw error
    throw cannotUse(dataDir, error)
  }
}

/**
 * The home of a data directory that has been used before; undefined: it never was.
 * @throws the errors of node:fs where this process may not look
 */
export function findHome(dataDir: string): string | undefined {
  if (isDirectory(pgDataOf(dataDir))) return dataDir
  if (!existsSync(dataDir)) return undefined
  const noted = readNote(dataDir)
  if (noted !== undefined) return noted
  const elsewhere = elsewhereOf(dataDir)
  return existsSync(passwordFileOf(elsewhere)) ? elsewhere : undefined
}

/** Root writes the note, and takes nobody else's word for where its database is. */
function readNote(dataDir: string): string | undefined {
  const note = join(dataDir, NOTE)
  if (!existsSync(note)) return undefined
  if (isRoot() && statSync(dataDir).uid !== 0) return undefined
  const { text, uid } = readOwnFile(note)
  return isRoot() && uid !== 0 ? undefined : text.split('\n')[0]
}

/** For root: open to PostgreSQL's account whatever the umask is, and written by root alone. */
function makeTrustedDirectory(directory: string): void {
  const isNew = makeDirectory(directory)
  if (isNew && isRoot()) chmodSync(directory, 0o755)
  checkOnlyRootWrites(directory)
}

/**
 * With those above it. Not node's `recursive`: that never returns where mkdir says ENOENT although
 * the directory above exists, as below /proc.
 * @returns whether it was made
 */
function makeDirectory(directory: string): boolean {
  if (existsSync(directory)) return false
  makeDirectory(dirname(directory))
  try {
    mkdirSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  return true
}

/** stat instead of exists: a directory that may not be looked at is not one that is missing. */
function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
}

function elsewhereOf(dataDir: string): string {
  const path = realpathSync(dataDir)
  const hash = createHash('sha256').update(path).digest('hex').slice(0, 12)
  const name = basename(path).replace(/[^A-Za-z0-9._-]/g, '_')
  return join(ELSEWHERE, `${name}-${hash}`)
}

function moveElsewhere(dataDir: string, account: Account, log: Log): string {
  const home = elsewhereOf(dataDir)
  makeTrustedDirectory(ELSEWHERE)
  makeTrustedDirectory(home)
  chmodSync(home, 0o711)
  if (!canEnter(account, home))
    throw new Failure(
      'EMBEDDED_POSTGRES',
      `PostgreSQL runs as ${account.name}, which can enter neither ${dataDir} nor ${home}: set` +
        ' POPGRES_DATA_DIR to a directory that it can enter',
    )
  replaceOwnFile(
    join(dataDir, NOTE),
    `${home}\n\nPostgreSQL does not run as root, and its account (${account.name}) cannot enter` +
      ' this directory.\nThe database and its keys are therefore in the directory named above.\n' +
      'To start from nothing, stop popgres and remove both directories.\n',
    0o644,
  )
  log.warn(
    { dataDir, home, account: account.name },
    `the account of PostgreSQL cannot enter ${dataDir}: the data is in ${home}`,
  )
  return home
}

/** The one line for an operator about a directory that cannot be used. */
export function cannotUse(directory: string, error: unknown): Failure {
  const { code, path, message } = error as NodeJS.ErrnoException
  const what =
    code === 'EACCES' || code === 'EPERM'
      ? `this user may not use ${path ?? directory}: run as the account that owns it, or as root`
      : `cannot use the directory ${directory}: ${message}`
  return new Failure('EMBEDDED_POSTGRES', what, error)
}

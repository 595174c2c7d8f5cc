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
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { Secret } from '../../base/secret.ts'
import { type Account, canEnter, isRoot, resolveAccount } from './account.ts'

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
 * @throws {Failure} EMBEDDED_POSTGRES if the directory cannot be made or used
 */
export function openHome(dataDir: string, log: Log): { home: string; account: Account } {
  try {
    const isNew = makeDirectory(dataDir)
    if (isNew && isRoot()) chmodSync(dataDir, 0o755)
    const home = findHome(dataDir)
    if (home !== undefined) {
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
  const note = join(dataDir, NOTE)
  if (existsSync(note)) return readFileSync(note, 'utf8').split('\n')[0]
  if (!existsSync(dataDir)) return undefined
  const elsewhere = elsewhereOf(dataDir)
  return existsSync(passwordFileOf(elsewhere)) ? elsewhere : undefined
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
  makeDirectory(home)
  chmodSync(ELSEWHERE, 0o755)
  chmodSync(home, 0o711)
  if (!canEnter(account, home))
    throw new Failure(
      'EMBEDDED_POSTGRES',
      `PostgreSQL runs as ${account.name}, which can enter neither ${dataDir} nor ${home}: set` +
        ' POPGRES_DATA_DIR to a directory that it can enter',
    )
  writeFileSync(
    join(dataDir, NOTE),
    `${home}\n\nPostgreSQL does not run as root, and its account (${account.name}) cannot enter` +
      ' this directory.\nThe database and its keys are therefore in the directory named above.\n' +
      'To start from nothing, stop popgres and remove both directories.\n',
  )
  log.warn(
    { dataDir, home, account: account.name },
    `the account of PostgreSQL cannot enter ${dataDir}: the data is in ${home}`,
  )
  return home
}

/**
 * A secret in a file of its own, readable by its owner only; made when it is missing. Two processes
 * that make it at once agree on one.
 */
export function openSecretFile(file: string, octets: number): Secret {
  if (!existsSync(file)) {
    const unfinished = `${file}.unfinished-${process.pid}`
    rmSync(unfinished, { force: true })
    writeFileSync(unfinished, randomBytes(octets).toString('hex'), { mode: 0o600, flush: true })
    matchOwner(unfinished, join(file, '..'))
    try {
      linkSync(unfinished, file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    } finally {
      rmSync(unfinished, { force: true })
    }
  }
  return readSecretFile(file)
}

/** @throws the errors of node:fs; EACCES for anybody but the owner */
export function readSecretFile(file: string): Secret {
  return new Secret(readFileSync(file, 'utf8').trim())
}

/** What root makes in a user's home belongs to that user: he may start without root next time. */
export function matchOwner(file: string, directory: string): void {
  if (!isRoot()) return
  const { uid, gid } = statSync(directory)
  chownSync(file, uid, gid)
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

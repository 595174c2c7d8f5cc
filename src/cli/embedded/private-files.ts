/**
 * Files and directories that root may open although others could have laid them out. A symbolic
 * link in a directory of another account would lead root's writing anywhere, so root serves from
 * directories of its own only, and no file of a home is opened through a link. What is opened is
 * looked at and changed by its descriptor, never again by its name.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { Failure } from '../../base/failure.ts'
import { Secret } from '../../base/secret.ts'
import { isRoot } from './account.ts'

/**
 * For root; an ordinary user has nothing to lose that others could not take anyway.
 * @throws {Failure} EMBEDDED_POSTGRES if others could put links into the directory
 */
export function checkOnlyRootWrites(directory: string): void {
  if (!isRoot()) return
  const { uid, mode } = statSync(directory)
  if (uid !== 0)
    throw new Failure(
      'EMBEDDED_POSTGRES',
      `${directory} belongs to another account (uid ${uid}): start popgres as that account, or` +
        ` make the directory root's with "chown root ${directory}"`,
    )
  if ((mode & 0o022) !== 0)
    throw new Failure(
      'EMBEDDED_POSTGRES',
      `others than root may write to ${directory}: forbid it with "chmod go-w ${directory}"`,
    )
}

/**
 * @param flags O_… of node:fs
 * @returns a descriptor to close
 * @throws {Failure} EMBEDDED_POSTGRES for a link, for what is no file, and where this process is
 *   root for a file of somebody who does not own the directory; the errors of node:fs
 */
function openOwnFile(file: string, flags: number): number {
  const descriptor = openWithoutLinks(file, flags)
  const { uid } = statSync(dirname(file))
  const found = fstatSync(descriptor)
  // In a directory of root's nobody else has put it there.
  const isOwn = !isRoot() || uid === 0 || found.uid === uid
  if (found.isFile() && isOwn) return descriptor
  closeSync(descriptor)
  throw notOwn(file)
}

function openWithoutLinks(file: string, flags: number): number {
  try {
    // Without O_NONBLOCK a named pipe would be waited for.
    return openSync(file, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, 0o600)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ELOOP' ? notOwn(file) : error
  }
}

function notOwn(file: string): Failure {
  return new Failure(
    'EMBEDDED_POSTGRES',
    `${file} is a link or not a file of the directory's owner: look what it is, and remove it`,
  )
}

/** @returns its text, and who owns it */
export function readOwnFile(file: string): { text: string; uid: number } {
  const descriptor = openOwnFile(file, constants.O_RDONLY)
  try {
    return { text: readFileSync(descriptor, 'utf8'), uid: fstatSync(descriptor).uid }
  } finally {
    closeSync(descriptor)
  }
}

/** In place of what was there under that name, which is not opened. */
export function replaceOwnFile(file: string, content: string | Buffer, mode: number): void {
  const unfinished = `${file}.unfinished-${randomBytes(8).toString('hex')}`
  writeFileSync(unfinished, content, { mode, flag: 'wx', flush: true })
  renameSync(unfinished, file)
}

/**
 * A secret in a file of its own, readable by its owner only; made, whole or not at all, when it is
 * missing. For the one process that holds the supervisor's lock.
 */
export function openSecretFile(file: string, octets: number): Secret {
  if (!existsSync(file)) replaceOwnFile(file, `${randomBytes(octets).toString('hex')}\n`, 0o600)
  return readSecretFile(file)
}

/**
 * Its lines are counted from the file's first.
 * @throws the errors of node:fs; EACCES for anybody but the owner
 */
export function readSecretFile(file: string): Secret {
  return new Secret(readOwnFile(file).text.trimEnd())
}

/** @returns a descriptor for appending, of a file that is this process' and private */
export function openLogFile(file: string): number {
  const { O_WRONLY, O_APPEND, O_CREAT } = constants
  const descriptor = openOwnFile(file, O_WRONLY | O_APPEND | O_CREAT)
  fchmodSync(descriptor, 0o600)
  if (isRoot()) fchownSync(descriptor, 0, 0)
  return descriptor
}

/** Empties a file that has grown beyond that; a missing one is left missing. */
export function boundLogFile(file: string, octetsMax: number): void {
  if (!existsSync(file)) return
  const descriptor = openOwnFile(file, constants.O_WRONLY)
  try {
    if (fstatSync(descriptor).size > octetsMax) ftruncateSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

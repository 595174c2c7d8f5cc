/**
 * Makes PostgreSQL's data directory, whole or not at all: initdb works in a directory of another
 * name, which takes its place by one rename at the end. What an interrupted start left is removed.
 */
import { spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { Secret } from '../../base/secret.ts'
import { type Account, SERVER_ENVIRONMENT } from './account.ts'
import type { Binaries } from './binaries.ts'
import { firstStartFileOf, pgDataOf } from './home.ts'
import { replaceOwnFile } from './private-files.ts'

export const DATABASE_NAME = 'popgres'
export const SUPERUSER_NAME = 'popgres'

const UNFINISHED = 'unfinished-'

/**
 * @param isDurable false: no fsync, for tests
 * @throws {Failure} EMBEDDED_POSTGRES if data of another major version is there, or initdb fails
 */
export async function ensurePgData(
  home: string,
  account: Account,
  binaries: Binaries,
  password: Secret,
  log: Log,
  isDurable: boolean,
): Promise<void> {
  removeUnfinished(home, log)
  const pgData = pgDataOf(home)
  if (existsSync(pgData)) {
    checkVersion(pgData, binaries)
    return
  }
  log.info({ directory: pgData }, `making a PostgreSQL ${binaries.majorVersion} database`)
  const staging = mkdtempSync(join(home, UNFINISHED))
  const made = join(staging, 'postgres')
  const passwordFile = join(staging, 'password')
  mkdirSync(made, { mode: 0o700 })
  writeFileSync(passwordFile, password.reveal(), { mode: 0o600 })
  if (account.ids !== undefined) {
    const { uid, gid } = account.ids
    chmodSync(staging, 0o711) // to pass through; a name in it stays what root made it
    for (const path of [made, passwordFile]) chownSync(path, uid, gid)
  }
  // The file, not an argument or a variable: those are for everybody to read.
  const args = ['-D', made, '-U', SUPERUSER_NAME, `--pwfile=${passwordFile}`]
  args.push('--auth=scram-sha-256', '--encoding=UTF8', '--locale=C')
  if (!isDurable) args.push('--no-sync')
  await run(binaries.initdb, args, account, '')
  rmSync(passwordFile)
  await run(
    binaries.postgres,
    ['--single', '-D', made, ...(isDurable ? [] : ['-F']), 'postgres'],
    account,
    `CREATE DATABASE ${DATABASE_NAME};\n`,
  )
  replaceOwnFile(firstStartFileOf(home), '', 0o644)
  renameSync(made, pgData)
  syncDirectory(home)
  rmSync(staging, { recursive: true })
}

function checkVersion(pgData: string, binaries: Binaries): void {
  const version = readFileSync(join(pgData, 'PG_VERSION'), 'utf8').trim()
  if (version === binaries.majorVersion) return
  throw new Failure(
    'EMBEDDED_POSTGRES',
    `${pgData} holds data of PostgreSQL ${version}, and this popgres brings PostgreSQL` +
      ` ${binaries.majorVersion}: dump it with pg_dump while the popgres that made it runs, start` +
      ' this one with another POPGRES_DATA_DIR and load the dump there, or set DATABASE_URL to a' +
      ` PostgreSQL ${version} of yours`,
  )
}

/** Of a start that was killed in the middle. Its initdb may still run, and will fail. */
function removeUnfinished(home: string, log: Log): void {
  for (const name of readdirSync(home)) {
    if (!name.startsWith(UNFINISHED)) continue
    try {
      rmSync(join(home, name), { recursive: true, force: true, maxRetries: 3 })
    } catch (error) {
      log.warn(
        { directory: join(home, name), reason: String(error) },
        'an unfinished database stays on the disk',
      )
    }
  }
}

function run(file: string, args: string[], account: Account, input: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { ...account.ids, cwd: '/', env: SERVER_ENVIRONMENT })
    let output = ''
    const collect = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-4_000)
    }
    child.stdout.on('data', collect)
    child.stderr.on('data', collect)
    child.stdin.on('error', () => {}) // it ended early: its exit status says so
    child.stdin.end(input)
    child.on('error', reject)
    child.on('close', (status) => {
      // Single-user mode ends with 0 even if the statement failed.
      if (status === 0 && !/^.*(ERROR|FATAL|PANIC):/m.test(output)) resolve()
      else reject(new Failure('EMBEDDED_POSTGRES', `making the database failed: ${output.trim()}`))
    })
  })
}

/** A rename is on the disk when its directory is. */
function syncDirectory(directory: string): void {
  chmodSync(pgDataOf(directory), 0o700)
  const descriptor = openSync(directory, 'r')
  fsyncSync(descriptor)
  closeSync(descriptor)
}

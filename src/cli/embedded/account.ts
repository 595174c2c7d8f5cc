/**
 * The account that PostgreSQL runs under. PostgreSQL refuses root, so root hands it to another
 * account: the one that owns the data already, else `postgres`, else `popgres`, which is made if
 * need be. An ordinary user runs it as himself.
 * Whether that account can reach a place is tried, not computed: mode bits up the path, ACLs and
 * mounts all count then.
 */
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { Failure } from '../../base/failure.ts'

/** `undefined` ids: the account of this process, nothing to switch. */
export interface Account {
  name: string
  ids: { uid: number; gid: number } | undefined
}

/** True where this process may choose an account, and must, as PostgreSQL refuses root. */
export const isRoot = (): boolean => process.getuid?.() === 0

/**
 * @param existingPgData a data directory that has an owner already, if there is one
 * @throws {Failure} EMBEDDED_POSTGRES if root finds no account and cannot make one
 */
export function resolveAccount(existingPgData: string | undefined): Account {
  if (!isRoot()) return { name: 'this user', ids: undefined }
  if (existingPgData !== undefined) {
    const { uid, gid } = statSync(existingPgData)
    if (uid !== 0) return { name: `uid ${uid}`, ids: { uid, gid } }
  }
  return findAccount('postgres') ?? findAccount('popgres') ?? createAccount('popgres')
}

function findAccount(name: string): Account | undefined {
  const id = (flag: string): number => {
    const { status, stdout } = spawnSync('id', [flag, name], { encoding: 'utf8' })
    return status === 0 ? Number(stdout) : 0
  }
  const uid = id('-u')
  const gid = id('-g')
  return uid > 0 && gid > 0 ? { name, ids: { uid, gid } } : undefined
}

function createAccount(name: string): Account {
  const group = spawnSync('/usr/sbin/groupadd', ['--system', name], { encoding: 'utf8' })
  const user = spawnSync(
    '/usr/sbin/useradd',
    ['--system', '-g', name, '-M', '-d', '/nonexistent', '-s', '/usr/sbin/nologin', name],
    { encoding: 'utf8' },
  )
  const account = findAccount(name)
  if (account !== undefined) return account
  const why = [group.stderr, user.stderr].filter(Boolean).join(' ').trim()
  throw new Failure(
    'EMBEDDED_POSTGRES',
    `PostgreSQL does not run as root, and no account could be made for it (${why}): add a system` +
      ' account named postgres, or start as an ordinary user',
  )
}

/** True if the account can enter that directory. */
export function canEnter(account: Account, directory: string): boolean {
  return runAs(account, '/bin/sh', ['-c', 'cd -- "$1"', 'sh', directory]).status === 0
}

/** Runs a short command as the account, away from directories that it may not see. */
export function runAs(
  account: Account,
  file: string,
  args: readonly string[],
): { status: number | null; output: string } {
  const result = spawnSync(file, args, {
    ...account.ids,
    cwd: '/',
    env: SERVER_ENVIRONMENT,
    encoding: 'utf8',
    timeout: 30_000,
  })
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim()
  return { status: result.status, output: result.error ? result.error.message : output }
}

/** Nothing of ours: PG… variables of a user's shell would change what PostgreSQL does. */
export const SERVER_ENVIRONMENT = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

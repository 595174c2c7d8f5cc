/** Users, through the real program: passwords, APOP, quota, suspension, removal. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { User } from '../../../src/admin/operations/users.ts'
import { Secret } from '../../../src/base/secret.ts'
import { apopUse } from '../../../src/mail/auth/apop-secret.ts'
import { Authenticator } from '../../../src/mail/auth/authenticator.ts'
import { putMessage } from '../../support/mail.ts'
import {
  addDomain,
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'
import { openProgram, PROGRAM, type Program } from './program.ts'
import { credentialsOf, type Ids, LOCAL_PEER, putSession, sessionCount } from './rows.ts'

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url, POPGRES_SECRET_KEY: TEST_SECRET_KEY_HEX })
  await addDomain(database.db, 'a.example')
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

async function idsOf(localPart: string): Promise<Ids> {
  const row = await database.db.kysely
    .selectFrom('users')
    .select(['domain_id', 'user_id'])
    .where('local_part', '=', localPart)
    .executeTakeFirstOrThrow()
  return { domainId: row.domain_id, userId: row.user_id }
}

async function canLogIn(address: string, password: string): Promise<boolean> {
  const authenticator = new Authenticator({
    db: database.db,
    log: pino({ level: 'silent' }),
    defaultDomain: '',
    keyring: TEST_KEYRING,
    failureDelayMs: 0,
  })
  const attempt = { mechanism: 'password', name: address, password: new Secret(password) } as const
  const { kind } = await authenticator.verify(attempt, LOCAL_PEER)
  return kind === 'accepted'
}

async function apopSecretOf(localPart: string): Promise<string | undefined> {
  const ids = await idsOf(localPart)
  const { apop_secret: stored } = await credentialsOf(database.db, ids)
  if (stored === null) return undefined
  const opened = TEST_KEYRING.open(apopUse(ids.domainId, ids.userId), stored)
  return opened.kind === 'opened' ? opened.secret.reveal().toString() : undefined
}

describe('user add', () => {
  test.concurrent('--password-stdin: the first line is the password, blanks kept', async () => {
    const args = ['user', 'add', 'Stdin@A.example', '--password-stdin', '--quota', '1.5G']
    expect(await program.run(args, ' pass word \n')).toMatchObject({
      status: 0,
      stdout: 'added Stdin@a.example\n',
    })
    expect(await program.json<User>(['user', 'show', 'STDIN@a.example'])).toMatchObject({
      address: 'Stdin@a.example',
      passwordScheme: 'argon2id',
      hasApop: false,
      hasScram: true,
      quotaOctets: 1_610_612_736,
      isSuspended: false,
    })
    expect(await canLogIn('stdin@a.example', ' pass word ')).toBe(true)
  })

  test.concurrent('a short password is taken with a word, an empty one is not', async () => {
    const add = (name: string, password: string) =>
      program.run(['user', 'add', `${name}@short.example`, '--password-stdin'], `${password}\n`)
    await addDomain(database.db, 'short.example')
    const note = 'note: the password has fewer than 8 characters and is soon guessed\n'
    expect((await add('one', 'x')).stderr).toContain(note)
    expect((await add('seven', 'äöüäöüä')).stderr).toContain(note)
    expect((await add('eight', 'äöüäöüäö')).stderr).not.toContain(note)
    expect(await add('none', '')).toMatchObject({
      status: 1,
      stderr: 'popgres: the password is empty\n',
    })
  })

  test.concurrent('user list shows who has no password', async () => {
    await addUser(database.db, 'with@column.example', { password: 'correct horse' })
    await addUser(database.db, 'without@column.example')
    const { stdout } = await program.run(['user', 'list', 'column.example'])
    const at = stdout.indexOf('PASSWORD')
    const cells = stdout.split('\n').map((line) => line.slice(at).split(' ')[0])
    expect(cells).toEqual(['PASSWORD', 'yes', 'no', ''])
  })

  test.concurrent('--generate prints the password once, and it works', async () => {
    const { status, stdout } = await program.run(['user', 'add', 'gen@a.example', '--generate'])
    expect(status).toBe(0)
    const password = /^password +(\S+)$/m.exec(stdout)?.[1] ?? ''
    expect(await canLogIn('gen@a.example', password)).toBe(true)
    expect((await program.run(['user', 'show', 'gen@a.example'])).stdout).not.toContain(password)
  })

  test.concurrent('--apop: its own secret, from the second line or made up, stored encrypted', async () => {
    const add = (address: string, input: string) =>
      program.run(['user', 'add', address, '--password-stdin', '--apop'], input)
    expect((await add('apop1@a.example', 'one\ntanstaaf\n')).stdout).not.toContain('tanstaaf')
    expect(await apopSecretOf('apop1')).toBe('tanstaaf')
    const { stdout } = await add('apop2@a.example', 'one\n')
    expect(await apopSecretOf('apop2')).toBe(/^APOP secret +(\S+)$/m.exec(stdout)?.[1])
    const { apop_secret: stored } = await credentialsOf(database.db, await idsOf('apop1'))
    expect(stored?.includes('tanstaaf')).toBe(false)
  })

  test.concurrent('--apop without a key is refused and adds nobody', async () => {
    const other = openProgram({ DATABASE_URL: database.url })
    const { status, stderr } = await other.run([
      'user',
      'add',
      'nokey@a.example',
      '--generate',
      '--apop',
    ])
    other.close()
    expect(status).toBe(1)
    expect(stderr).toMatch(/^popgres: APOP needs POPGRES_SECRET_KEY[^\n]*\n$/)
    expect((await program.run(['user', 'show', 'nokey@a.example'])).status).toBe(1)
  })

  test.concurrent('a note, once others log in by APOP', async () => {
    const own = await openTestDatabase()
    const other = openProgram({ DATABASE_URL: own.url })
    const add = (name: string) => other.run(['user', 'add', `${name}@b.example`, '--generate'])
    try {
      await addDomain(own.db, 'b.example')
      expect((await add('one')).stderr).toBe('')
      await addUser(own.db, 'two@b.example', { apopSecret: 'shared' })
      expect((await add('three')).stderr).toMatch(/^note: others log in by APOP/)
    } finally {
      other.close()
      await own.close()
    }
  })

  test.concurrent.each([
    ['no domain', 'x', 'p\n', /has no domain/],
    ['an unknown domain', 'x@none.example', 'p\n', /no domain none\.example/],
    ['a bad local part', 'a..b@a.example', 'p\n', /before the @/],
    ['an empty password', 'x@a.example', '\n', /password is empty/],
    ['nothing on standard input', 'x@a.example', '', /standard input is empty/],
    ['two lines', 'x@a.example', 'p\nq\n', /more than one line/],
  ])('%s is refused in one line', async (_, address, input, line) => {
    const { status, stdout, stderr } = await program.run(
      ['user', 'add', address, '--password-stdin'],
      input,
    )
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(/^popgres: [^\n]+\n$/)
    expect(stderr).toMatch(line)
  })

  test.concurrent('without a terminal and without an option it says what to give', async () => {
    const { status, stderr } = await program.run(['user', 'add', 'x@a.example'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/--password-stdin or --generate/)
  })

  test.concurrent.each(['add', 'passwd'])(
    '%s: an address without a domain is told before a password is asked for',
    async (verb) => {
      const { status, stderr } = await program.run(['user', verb, 'x'])
      expect(status).toBe(1)
      expect(stderr).toMatch(/^popgres: "x" has no domain[^\n]*\n$/)
    },
  )

  test.concurrent('an address that is there is refused in any case', async () => {
    await addUser(database.db, 'Twice@a.example')
    const { status, stderr } = await program.run(['user', 'add', 'TWICE@a.example', '--generate'])
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: 'popgres: Twice@a.example exists already\n',
    })
  })

  test.runIf(existsSync('/proc/self/cmdline'))('ps shows no password', async () => {
    const args = [PROGRAM, 'user', 'add', 'ps@a.example', '--password-stdin']
    const env = { PATH: process.env.PATH, DATABASE_URL: database.url }
    const child = spawn(process.execPath, args, { env, stdio: ['pipe', 'pipe', 'inherit'] })
    child.stdin.write('hunter2')
    const seen = readFileSync(`/proc/${child.pid}/cmdline`, 'latin1')
    expect(seen).toContain('ps@a.example')
    expect(seen).not.toContain('hunter2')
    child.stdin.end('\n')
    await once(child, 'close')
    expect(child.exitCode).toBe(0)
  })
})

describe('user passwd', () => {
  test.concurrent('the old one stops working, the session ends, APOP stays', async () => {
    const options = { password: 'old', apopSecret: 'shared' }
    const ids = await addUser(database.db, 'pw@a.example', options)
    await putSession(database.db, ids)
    const args = ['user', 'passwd', 'PW@a.example', '--password-stdin']
    expect((await program.run(args, 'new\n')).status).toBe(0)
    expect(await canLogIn('pw@a.example', 'old')).toBe(false)
    expect(await canLogIn('pw@a.example', 'new')).toBe(true)
    expect(await sessionCount(database.db, ids)).toBe(0)
    expect(await apopSecretOf('pw')).toBe('shared')
  })

  test.concurrent('--keep-password changes APOP alone', async () => {
    const ids = await addUser(database.db, 'keep@a.example', { password: 'old' })
    const before = await credentialsOf(database.db, ids)
    const passwd = (...options: string[]) =>
      program.run(['user', 'passwd', 'keep@a.example', '--keep-password', ...options])
    const { stdout } = await passwd('--apop')
    expect(await apopSecretOf('keep')).toBe(/^APOP secret +(\S+)$/m.exec(stdout)?.[1])
    await putSession(database.db, ids)
    expect((await passwd('--no-apop')).status).toBe(0)
    expect(await apopSecretOf('keep')).toBeUndefined()
    expect(await sessionCount(database.db, ids)).toBe(0)
    expect((await credentialsOf(database.db, ids)).password_hash).toBe(before.password_hash)
  })

  test.concurrent('--no-apop with a new password takes APOP away', async () => {
    await addUser(database.db, 'both@a.example', { password: 'old', apopSecret: 'shared' })
    const args = ['user', 'passwd', 'both@a.example', '--password-stdin', '--no-apop']
    expect((await program.run(args, 'new\n')).status).toBe(0)
    expect(await apopSecretOf('both')).toBeUndefined()
    expect(await canLogIn('both@a.example', 'new')).toBe(true)
  })
})

test.concurrent('list and show tell messages, size, quota and who is online', async () => {
  const ids = await addUser(database.db, 'Zoe@list.example', { quotaOctets: 2048 })
  await addUser(database.db, 'adam@list.example')
  await putMessage(database.db, ids.domainId, [ids.userId], 'Subject: x\r\n\r\n1234567890\r\n')
  await putSession(database.db, ids)
  const users = await program.json<User[]>(['user', 'list', 'list.example'])
  expect(users.map((user) => user.address)).toEqual(['adam@list.example', 'Zoe@list.example'])
  expect(users[1]).toMatchObject({
    messageCount: 1,
    octets: 26,
    quotaOctets: 2048,
    hasSession: true,
  })
  expect(users[0]).toMatchObject({ passwordScheme: null, quotaOctets: null, hasSession: false })
  const { stdout } = await program.run(['user', 'list', 'list.example'])
  expect(stdout).toMatch(/^Zoe@list\.example +1 +26 +2\.0K +no +no +yes +no$/m)
})

test.concurrent('quota is set and lifted', async () => {
  await addUser(database.db, 'quota@a.example')
  const quota = async () =>
    (await program.json<User>(['user', 'show', 'quota@a.example'])).quotaOctets
  expect((await program.run(['user', 'quota', 'quota@a.example', '2k'])).status).toBe(0)
  expect(await quota()).toBe(2048)
  expect((await program.run(['user', 'quota', 'quota@a.example', 'none'])).status).toBe(0)
  expect(await quota()).toBeNull()
})

test.concurrent('suspend ends the session and keeps out; resume lets in again', async () => {
  const ids = await addUser(database.db, 'sus@a.example', { password: 'p' })
  await putSession(database.db, ids)
  expect((await program.run(['user', 'suspend', 'sus@a.example'])).status).toBe(0)
  expect(await sessionCount(database.db, ids)).toBe(0)
  expect(await canLogIn('sus@a.example', 'p')).toBe(false)
  expect((await program.run(['user', 'resume', 'sus@a.example'])).status).toBe(0)
  expect(await canLogIn('sus@a.example', 'p')).toBe(true)
})

test.concurrent('remove wants --yes without a terminal, says what goes, and takes all of it', async () => {
  const ids = await addUser(database.db, 'rm@a.example')
  await putMessage(database.db, ids.domainId, [ids.userId], 'Subject: x\r\n\r\n')
  await putSession(database.db, ids)
  const asked = await program.run(['user', 'remove', 'RM@a.example'])
  expect(asked.status).toBe(1)
  expect(asked.stderr).toMatch(/rm@a\.example with 1 message \(14 octets\)[^\n]*--yes[^\n]*\n$/)
  expect(await sessionCount(database.db, ids)).toBe(1)
  const done = await program.run(['user', 'remove', 'RM@a.example', '--yes'])
  expect(done).toMatchObject({ status: 0, stderr: '' })
  expect(await sessionCount(database.db, ids)).toBe(0)
  const again = await program.run(['user', 'remove', 'rm@a.example', '--yes'])
  expect(again).toMatchObject({ status: 1, stderr: expect.stringMatching(/no user rm@a\.example/) })
})

/**
 * App passwords and client certificates, through the real program and through the SQL functions:
 * what is added opens the maildrop, what is revoked ends its session.
 */
import { createHash, randomBytes, X509Certificate } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential } from '../../../src/admin/operations/credentials.ts'
import type { User } from '../../../src/admin/operations/users.ts'
import { Secret } from '../../../src/base/secret.ts'
import { Authenticator } from '../../../src/mail/auth/authenticator.ts'
import { TestAuthority } from '../../support/certificates.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import { type Ids, LOCAL_PEER, putSession, sessionCount } from './rows.ts'

let database: TestDatabase
let program: Program
let door: Authenticator

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  door = new Authenticator({
    db: database.db,
    log: pino({ level: 'silent' }),
    defaultDomain: '',
    keyring: undefined,
    failureDelayMs: 0,
  })
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

/** @returns the credential that opened; undefined: none did */
async function logIn(name: string, password: string): Promise<string | undefined> {
  const attempt = { mechanism: 'password', name, password: new Secret(password) } as const
  const verdict = await door.verify(attempt, LOCAL_PEER)
  return verdict.kind === 'accepted' ? verdict.credentialId : undefined
}

async function openSession(ids: Ids, credentialId: string | null): Promise<void> {
  const sessionId = await putSession(database.db, ids)
  await database.db.kysely
    .updateTable('sessions')
    .set({ credential_id: credentialId })
    .where('session_id', '=', sessionId)
    .execute()
}

const passwordIn = (stdout: string): string =>
  /^app password +(\S+)$/m.exec(stdout)?.[1] ?? 'none printed'

const add = (address: string, ...options: string[]) =>
  program.run(['credential', 'add', address, ...options])

const list = (address: string) => program.json<Credential[]>(['credential', 'list', address])

describe('credential add', () => {
  test.concurrent('prints an app password once, and it works', async () => {
    await addUser(database.db, 'Ada@add.example')
    const { status, stdout } = await add('ada@ADD.example', '--name', 'phone')
    expect(status).toBe(0)
    const password = passwordIn(stdout)
    expect(password).toMatch(/^([a-z2-7]{4}-){5}[a-z2-7]{4}$/)
    expect(await logIn('ada@add.example', password)).toBeDefined()
    const { stdout: shown } = await program.run(['credential', 'list', 'ada@add.example'])
    expect(shown).toMatch(/^phone +app-password +never +all +\d{4}-\S+ \S+Z +\d{4}-\S+ \S+Z$/m)
    expect(shown).not.toContain(password)
    const user = await program.json<User>(['user', 'show', 'ada@add.example'])
    expect(user).toMatchObject({ credentialCount: 1, isMainPasswordAllowed: true })
  })

  test.concurrent('--expires takes a day or a number of days, --network several', async () => {
    const address = 'limits@add.example'
    await addUser(database.db, address)
    await add(address, '--name', 'a', '--expires', '2999-01-31', '--network', '192.0.2.77/24')
    await add(
      address,
      '--name',
      'b',
      '--expires',
      '90d',
      '--network',
      '::1',
      '--network',
      '10.0.0.1',
    )
    const [a, b] = await list(address)
    expect(a).toMatchObject({
      name: 'a',
      kind: 'app-password',
      expiresAt: '2999-01-31T00:00:00.000Z',
      isExpired: false,
      networks: ['192.0.2.0/24'],
      lastUsedAt: null,
    })
    expect(b?.networks).toEqual(['::1/128', '10.0.0.1/32'])
    const days = (new Date(b?.expiresAt ?? 0).getTime() - Date.now()) / 86_400_000
    expect(days).toBeGreaterThan(89.9)
    expect(days).toBeLessThanOrEqual(90)
  })

  test.concurrent('--certificate binds a certificate, as PEM or DER, until it ends', async () => {
    const address = 'cert@add.example'
    await addUser(database.db, address)
    const authority = await TestAuthority.create()
    const notAfter = new Date('2998-05-01T00:00:00Z')
    const { cert } = await authority.issue(['laptop'], { notAfter })
    const { raw } = new X509Certificate(cert)
    const [pem, der] = [join(program.directory, 'c.pem'), join(program.directory, 'c.der')]
    writeFileSync(pem, cert)
    writeFileSync(der, raw)
    expect(await add(address, '--name', 'one', '--certificate', pem)).toMatchObject({
      status: 0,
      stdout: `added one to ${address}\n`,
    })
    await add(address, '--name', 'two', '--certificate', der, '--expires', '2997-01-01')
    expect(await list(address)).toMatchObject([
      { name: 'one', kind: 'certificate', expiresAt: notAfter.toISOString() },
      { name: 'two', kind: 'certificate', expiresAt: '2997-01-01T00:00:00.000Z' },
    ])
    const certificateDigest = createHash('sha256').update(raw).digest()
    const peer = { ...LOCAL_PEER, certificateDigest }
    // Twice the same certificate, but one user.
    expect((await door.verify({ mechanism: 'external', name: '' }, peer)).kind).toBe('accepted')
  })

  test.concurrent.each([
    ['an unknown user', ['no@add.example', '--name', 'x'], /^popgres: there is no user no@add/],
    ['a second of one name', ['twice@add.example', '--name', 'x'], /of this name already\n$/],
    ['no name', ['twice@add.example', '--name', ''], /1 to 64 printable/],
    ['a past day', ['twice@add.example', '--name', 'y', '--expires', '2020-01-01'], /expired/],
    ['no network', ['twice@add.example', '--name', 'y', '--network', '10.0.0.0/33'], /network/],
    ['no file', ['twice@add.example', '--name', 'y', '--certificate', 'none.pem'], /no such file/],
  ])('%s is refused in one line', async (_, args, line) => {
    await addUser(database.db, 'twice@add.example').catch(() => undefined)
    await add('twice@add.example', '--name', 'x')
    const { status, stdout, stderr } = await program.run(['credential', 'add', ...args])
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(/^popgres: [^\n]+\n$/)
    expect(stderr).toMatch(line)
  })

  test.concurrent.each(['31.1.2027', '2027-02-31', '0d', 'soon'])(
    '--expires %s is wrong usage',
    async (when) => {
      const { status, stderr } = await add('x@add.example', '--name', 'x', '--expires', when)
      expect(status).toBe(2)
      expect(stderr).toMatch(/2027-01-31/)
    },
  )
})

test.concurrent('the first app password ends SCRAM for all, which is said', async () => {
  const own = await openTestDatabase()
  const env = { DATABASE_URL: own.url }
  const [automatic, chosen] = [
    openProgram(env),
    openProgram({ ...env, POPGRES_SASL_MECHANISMS: 'PLAIN, SCRAM-SHA-256' }),
  ]
  const addTo = async ({ run }: Program, name: string) =>
    (await run(['credential', 'add', 'ada@scram.example', '--name', name])).stderr
  const note = /^note: [^:]*first app password[\s\S]*longer offered it \(POPGRES_SASL_MECHANISMS/
  try {
    const { userId } = await addUser(own.db, 'ada@scram.example', { password: 'secret' })
    expect(await addTo(automatic, 'before anybody has keys')).toBe('')
    const { kysely } = own.db
    await kysely.deleteFrom('credentials').where('user_id', '=', userId).execute()
    const users = kysely.updateTable('users').where('user_id', '=', userId)
    await users.set({ scram_keys: Buffer.from('sealed') }).execute()
    expect(await addTo(automatic, 'first')).toMatch(note)
    expect(await addTo(automatic, 'second')).toBe('')
    await kysely.deleteFrom('credentials').where('user_id', '=', userId).execute()
    expect(await addTo(chosen, 'first again')).toBe('')
  } finally {
    automatic.close()
    chosen.close()
    await own.close()
  }
})

describe('credential revoke', () => {
  test.concurrent('ends the session that it opened, and no other', async () => {
    const address = 'gone@revoke.example'
    const ids = await addUser(database.db, address)
    const [lost, kept] = [
      passwordIn((await add(address, '--name', 'lost')).stdout),
      passwordIn((await add(address, '--name', 'kept')).stdout),
    ]
    const revoke = (name: string) => program.run(['credential', 'revoke', address, name])
    const keptId = await logIn(address, kept)
    await openSession(ids, keptId ?? null)
    expect(await revoke('lost')).toMatchObject({
      status: 0,
      stdout: `revoked lost of ${address}, never used\n`,
    })
    expect(await sessionCount(database.db, ids)).toBe(1)
    expect(await logIn(address, lost)).toBeUndefined()
    const [{ credentialId, lastUsedAt } = {}] = await list(address)
    expect(credentialId).toBe(keptId)
    const moment = String(lastUsedAt).replace('T', ' ').replace(/\.\d+/, '')
    expect(await revoke('kept')).toEqual({
      status: 0,
      stdout: `revoked kept of ${address}, last used ${moment}\n`,
      stderr: '',
    })
    expect(await sessionCount(database.db, ids)).toBe(0)
    expect(await logIn(address, kept)).toBeUndefined()
    const again = await revoke('kept')
    expect(again.status).toBe(1)
    expect(again.stderr).toMatch(
      /^popgres: gone@revoke\.example has no credential "kept": [^\n]+\n$/,
    )
  })
})

describe('in SQL', () => {
  const call = async (text: ReturnType<typeof sql>): Promise<unknown> => {
    const { rows } = await text.execute(database.db.kysely)
    return Object.values(rows[0] ?? {})[0]
  }

  test.concurrent('add_app_password and revoke_credential do the same', async () => {
    await addUser(database.db, 'Sql@sql.example')
    const password = String(
      await call(
        sql`select add_app_password('sql@SQL.example', 'phone', now() + '1 day', '{127.0.0.0/8}')`,
      ),
    )
    expect(await logIn('sql@sql.example', password)).toBeDefined()
    expect(await list('sql@sql.example')).toMatchObject([
      { name: 'phone', networks: ['127.0.0.0/8'], isExpired: false },
    ])
    expect(await call(sql`select revoke_credential('SQL@sql.example', 'phone')`)).toBe(true)
    expect(await call(sql`select revoke_credential('SQL@sql.example', 'phone')`)).toBe(false)
    expect(await logIn('sql@sql.example', password)).toBeUndefined()
  })

  test.concurrent('no two are alike, and all signs are used', async () => {
    await addUser(database.db, 'many@sql.example')
    const made = new Set<string>()
    for (let count = 0; count < 40; count++)
      made.add(String(await call(sql`select add_app_password('many@sql.example', ${`n${count}`})`)))
    expect(made.size).toBe(40)
    expect(new Set([...made].join('').replaceAll('-', '')).size).toBe(32)
  })

  test.concurrent('a user has 50 at most', async () => {
    const { userId } = await addUser(database.db, 'full@sql.example')
    await sql`select add_credential('full@sql.example', 'certificate', 'c' || n,
      sha256(n::text::bytea)) from generate_series(1, 50) n`.execute(database.db.kysely)
    await expect(call(sql`select add_app_password('full@sql.example', 'one')`)).rejects.toThrow(
      /50 credentials/,
    )
    const { status, stderr } = await add('full@sql.example', '--name', 'one')
    expect(status).toBe(1)
    expect(stderr).toMatch(/^popgres: full@sql\.example has 50 credentials[^\n]*\n$/)
    const rows = database.db.kysely.selectFrom('credentials').select('name')
    expect(await rows.where('user_id', '=', userId).execute()).toHaveLength(50)
  })

  test.concurrent('an unknown address is an error', async () => {
    for (const text of [
      sql`select add_app_password('no@sql.example', 'x')`,
      sql`select revoke_credential('no@sql.example', 'x')`,
      sql`select add_credential('no@sql.example', 'certificate', 'x', ${randomBytes(32)})`,
    ])
      await expect(call(text)).rejects.toThrow(/there is no user/)
  })
})

test.concurrent('user main-password shuts the password out, and lets it in again', async () => {
  const address = 'main@main.example'
  const ids = await addUser(database.db, address, { password: 'secret' })
  const kindOf = async () => {
    const password = new Secret('secret')
    return (await door.verify({ mechanism: 'password', name: address, password }, LOCAL_PEER)).kind
  }
  expect(await kindOf()).toBe('accepted')
  await putSession(database.db, ids)
  const set = (choice: string) => program.run(['user', 'main-password', address, choice])
  expect(await set('off')).toMatchObject({
    status: 0,
    stdout: `main password of ${address}: off\n`,
  })
  expect(await sessionCount(database.db, ids)).toBe(0)
  expect(await kindOf()).toBe('refused')
  expect((await program.run(['user', 'show', address])).stdout).toMatch(
    /^main password +not over POP3$/m,
  )
  await set('on')
  expect(await kindOf()).toBe('accepted')
  expect((await set('perhaps')).status).toBe(2)
})

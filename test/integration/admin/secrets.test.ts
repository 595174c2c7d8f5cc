/**
 * Changing POPGRES_SECRET_KEY through the real program, with everything that is sealed in place:
 * all of it opens before, between and after, and no session ends by it.
 */
import { randomBytes } from 'node:crypto'
import { hashSync } from 'bcryptjs'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Rotation, SealedUnder } from '../../../src/admin/operations/trust/secrets.ts'
import { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'
import { apopUse } from '../../../src/mail/auth/apop-secret.ts'
import { oauthUse } from '../../../src/mail/auth/bearer/introspection.ts'
import { scramSealUse } from '../../../src/mail/auth/proofs/scram.ts'
import { certificateUse } from '../../../src/server/tls/kept-key-pair.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import { selectSealed, updateSealed } from '../../../src/storage/tenants/sealed.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import { type Ids, putSession, sessionCount } from './rows.ts'

const NEW_KEY_HEX = '5c'.repeat(32)
const NEW = new Keyring([new Secret(Buffer.from(NEW_KEY_HEX, 'hex'))])
const BOTH = new Keyring([...NEW.keys, ...TEST_KEYRING.keys])

let database: TestDatabase
let ids: Ids
const programs: Program[] = []

/** @param keys of POPGRES_SECRET_KEY */
function programWith(...keys: string[]): Program {
  const env = { DATABASE_URL: database.url, POPGRES_SECRET_KEY: keys.join(' ') }
  const program = openProgram(env)
  programs.push(program)
  return program
}

const rotating = (): Program => programWith(NEW_KEY_HEX, TEST_SECRET_KEY_HEX)

beforeEach(async () => {
  database = await openTestDatabase()
  ids = await addUser(database.db, 'ada@one.example', { apopSecret: 'tanstaaf' })
  const old = programWith(TEST_SECRET_KEY_HEX)
  await old.run(['user', 'passwd', 'ada@one.example', '--password-stdin'], 'correct horse\n')
  await sql`insert into certificates (host_name, chain, private_key) values ('pop.one.example',
    '-----BEGIN CERTIFICATE-----',
    ${TEST_KEYRING.seal(certificateUse('pop.one.example'), new Secret('a PEM key'))})`.execute(
    database.db.kysely,
  )
  await sql`insert into oauth_providers (domain_id, issuer, introspection_uri, client_secret)
    values (${ids.domainId}, 'https://id.example', 'https://id.example/introspect',
      ${TEST_KEYRING.seal(oauthUse(ids.domainId), new Secret('a client secret'))})`.execute(
    database.db.kysely,
  )
})

afterEach(async () => {
  await database.close()
})

afterAll(() => {
  for (const program of programs) program.close()
})

async function column(query: ReturnType<typeof sql<{ value: Buffer | null }>>) {
  const { rows } = await query.execute(database.db.kysely)
  return rows[0]?.value ?? Buffer.alloc(0)
}

/** What `keyring` opens of the four, in words. */
async function opensWith(keyring: Keyring): Promise<Record<string, string>> {
  const { domainId, userId } = ids
  const user = await selectLoginAccount(database.db, 'one.example', 'ada')
  const open = (use: string, sealed: Buffer): string => {
    const opened = keyring.open(use, sealed)
    return opened.kind === 'opened' ? opened.secret.reveal().toString() : opened.kind
  }
  const scram = open(
    scramSealUse(domainId, userId, user?.passwordHash ?? ''),
    user?.scramKeys ?? Buffer.alloc(0),
  )
  return {
    apop: open(apopUse(domainId, userId), user?.apopSecret ?? Buffer.alloc(0)),
    scram: scram.replace(/\$.*/, ''),
    certificate: open(
      certificateUse('pop.one.example'),
      await column(sql`select private_key as value from certificates`),
    ),
    oauth: open(
      oauthUse(domainId),
      await column(sql`select client_secret as value from oauth_providers`),
    ),
  }
}

const WHOLE = {
  apop: 'tanstaaf',
  scram: 'SCRAM-SHA-256',
  certificate: 'a PEM key',
  oauth: 'a client secret',
}
const OTHER = {
  apop: 'other-key',
  scram: 'other-key',
  certificate: 'other-key',
  oauth: 'other-key',
}

describe('secret rotate', () => {
  test('its help explains every column', async () => {
    const { stdout } = await rotating().run(['secret', 'rotate', '--help'])
    for (const column of ['Passed', 'Dropped', 'Unreadable'])
      expect(stdout).toContain(`"${column}" are`)
  })

  test('seals everything under the first key, and nothing a second time', async () => {
    expect([await opensWith(TEST_KEYRING), await opensWith(NEW)]).toEqual([WHOLE, OTHER])
    const program = rotating()
    const done = await program.json<Rotation[]>(['secret', 'rotate'])
    const each = { resealed: 1, passed: 0, dropped: 0, unreadable: 0 }
    expect(done).toEqual(
      ['apop', 'scram', 'certificate', 'oauth'].map((kind) => ({ kind, ...each })),
    )
    expect([await opensWith(NEW), await opensWith(TEST_KEYRING)]).toEqual([WHOLE, OTHER])
    const again = await program.json<Rotation[]>(['secret', 'rotate'])
    expect(again.map(({ resealed, passed }) => [resealed, passed])).toEqual(Array(4).fill([0, 1]))
  })

  test('ends no session: the fingerprint stays, and changes with another secret', async () => {
    const fingerprint = async () =>
      (await selectLoginAccount(database.db, 'one.example', 'ada'))?.fingerprint
    const before = await fingerprint()
    await putSession(database.db, ids)
    expect((await rotating().run(['secret', 'rotate'])).status).toBe(0)
    expect(await fingerprint()).toBe(before)
    expect(await sessionCount(database.db, ids)).toBe(1)
    const sealed = NEW.seal(apopUse(ids.domainId, ids.userId), new Secret('tanstaaf'))
    const query = database.db.kysely.updateTable('users').set({ apop_secret: sealed })
    await query.where('user_id', '=', ids.userId).execute()
    expect(await fingerprint()).not.toBe(before)
  })

  test('goes through more than one batch', async () => {
    const seal = (userId: number) =>
      TEST_KEYRING.seal(apopUse(ids.domainId, userId), new Secret('x'))
    const inserted = await sql<{ user_id: number }>`insert into users (domain_id, local_part)
      select ${ids.domainId}, 'u' || n from generate_series(1, 1200) n returning user_id`.execute(
      database.db.kysely,
    )
    const rows = inserted.rows.map(({ user_id: id }) => [id, seal(id).toString('hex')])
    await sql`update users u set apop_secret = decode(r.v ->> 1, 'hex')
      from (select jsonb_array_elements(${JSON.stringify(rows)}::jsonb) as v) r
      where u.domain_id = ${ids.domainId} and u.user_id = (r.v ->> 0)::bigint`.execute(
      database.db.kysely,
    )
    const [apop] = await rotating().json<Rotation[]>(['secret', 'rotate'])
    expect(apop).toEqual({ kind: 'apop', resealed: 1201, passed: 0, dropped: 0, unreadable: 0 })
  })

  test('never overwrites what a node has changed meanwhile', async () => {
    const { db } = database
    const [read] = await selectSealed(db, 'apop', undefined, 10)
    if (read === undefined) throw new Error('nothing is sealed')
    const use = apopUse(ids.domainId, ids.userId)
    const newer = TEST_KEYRING.seal(use, new Secret('set meanwhile'))
    const query = db.kysely.updateTable('users').set({ apop_secret: newer })
    await query.where('user_id', '=', ids.userId).execute()
    const resealed = BOTH.reseal(use, read.sealed) ?? null
    expect(await updateSealed(db, 'apop', read, resealed)).toBe(false)
    const [now] = await selectSealed(db, 'apop', undefined, 10)
    expect(now?.sealed).toEqual(newer)
    expect(await selectSealed(db, 'apop', read.key, 10)).toEqual([])
  })

  test('leaves what it cannot open and says so; stale SCRAM keys go', async () => {
    const foreign = new Keyring([new Secret(randomBytes(32))])
    const sealed = foreign.seal(apopUse(ids.domainId, ids.userId), new Secret('tanstaaf'))
    await sql`update users set apop_secret = ${sealed},
      password_hash = ${hashSync('changed by SQL', 4)}`.execute(database.db.kysely)
    const { status, stdout } = await rotating().run(['secret', 'rotate'])
    expect(status).toBe(1)
    expect(stdout).toMatch(/^APOP secrets +0 +0 +0 +1$/m)
    expect(stdout).toMatch(/^SCRAM keys +0 +0 +1 +0$/m)
    const user = await selectLoginAccount(database.db, 'one.example', 'ada')
    expect([user?.apopSecret, user?.scramKeys]).toEqual([sealed, undefined])
  })

  test('without a key is refused in one line', async () => {
    const { status, stderr } = await programWith().run(['secret', 'rotate'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^popgres: there is no secret key[^\n]*\n$/)
  })
})

describe('secret list', () => {
  test('counts what is under which key', async () => {
    const program = rotating()
    const list = () => program.json<SealedUnder[]>(['secret', 'list'])
    const before = await list()
    expect(before.map(({ kind, rows, key }) => [kind, rows, key])).toEqual([
      ['apop', 1, 'old'],
      ['scram', 1, 'old'],
      ['certificate', 1, 'old'],
      ['oauth', 1, 'old'],
    ])
    expect(before[0]?.keyId).toMatch(/^[0-9a-f]{8}$/)
    await program.run(['secret', 'rotate'])
    expect((await list()).map(({ key }) => key)).toEqual(Array(4).fill('current'))
    const alone = programWith(TEST_SECRET_KEY_HEX)
    const { stdout } = await alone.run(['secret', 'list'])
    expect(stdout).toMatch(/^SCRAM keys +[0-9a-f]{8} +1 +missing$/m)
    expect(BOTH.isKnown(NEW.seal('x', new Secret('y')))).toBe(true)
  })
})

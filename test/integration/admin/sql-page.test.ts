/**
 * docs/sql.md, statement by statement on a real PostgreSQL: what it shows works and does what its
 * heading says, what it calls refused is refused by the constraint it names.
 */
import { readFileSync } from 'node:fs'
import { Client, DatabaseError } from 'pg'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { wordedConstraints } from '../../../src/admin/refusal.ts'
import { Secret } from '../../../src/base/secret.ts'
import { Authenticator } from '../../../src/mail/auth/authenticator.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { putMessage } from '../../support/mail.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { type Ids, LOCAL_PEER, putSession, sessionCount } from './rows.ts'

interface Block {
  heading: string
  isRefused: boolean
  text: string
}

const PAGE = readFileSync(new URL('../../../docs/sql.md', import.meta.url), 'utf8')
const blocks = readBlocks(PAGE)

let database: TestDatabase
let client: Client
/** Blocks that the checks below have not run yet, in the page's order. */
let remaining: Block[]

beforeAll(async () => {
  database = await openTestDatabase()
  client = new Client(database.url)
  await client.connect()
  remaining = blocks.filter((block) => !block.isRefused)
})

afterAll(async () => {
  await client?.end()
  await database?.close()
})

function readBlocks(page: string): Block[] {
  const found: Block[] = []
  let heading = ''
  for (const match of page.matchAll(/^## (.+)$|^```sql( refused)?\n([\s\S]*?)^```$/gm)) {
    const [, title, refused, text] = match
    if (title !== undefined) heading = title
    else found.push({ heading, isRefused: refused !== undefined, text: text ?? '' })
  }
  return found
}

/** Runs the page's next block. @returns the rows of its last statement */
async function runNext(heading: string): Promise<Record<string, unknown>[]> {
  const block = remaining.shift()
  expect(block?.heading).toBe(heading)
  const results: unknown = await client.query(block?.text ?? '')
  return (Array.isArray(results) ? results.at(-1) : results).rows
}

async function logIn(name: string, password: string): Promise<string> {
  const { db } = database
  const log = pino({ level: 'silent' })
  const authenticator = new Authenticator({
    db,
    log,
    defaultDomain: '',
    keyring: undefined,
    failureDelayMs: 0,
  })
  const attempt = { mechanism: 'password', name, password: new Secret(password) } as const
  const outcome = await authenticator.verify(attempt, LOCAL_PEER)
  return outcome.kind === 'accepted' ? outcome.kind : outcome.reason
}

async function accountOf(localPart: string) {
  const account = await selectLoginAccount(database.db, 'example.com', localPart)
  if (account === undefined) throw new Error(`no ${localPart}`)
  return account
}

describe.sequential('the page, from top to bottom', () => {
  test('a domain', async () => {
    await runNext('Add a domain')
    const { rows } = await client.query('select name, suspended, trash_days from domains')
    expect(rows).toEqual([{ name: 'example.com', suspended: false, trash_days: 7 }])
  })

  test('a user by pgcrypto receives and logs in, and is then kept as argon2id', async () => {
    await runNext('Add a user')
    expect((await accountOf('alice')).passwordHash).toMatch(/^\$2a\$10\$/)
    expect(await selectRecipients(database.db, 'EXAMPLE.com', 'Alice')).toMatchObject([
      { isOverQuota: false },
    ])
    expect(await logIn('alice@example.com', 'wrong')).toBe('bad-credentials')
    expect(await logIn('Alice@Example.com', 'correct horse')).toBe('accepted')
    expect((await accountOf('alice')).passwordHash).toMatch(/^\$argon2id\$/)
    expect(await logIn('alice@example.com', 'correct horse')).toBe('accepted')
  })

  test('a user by a hash made elsewhere', async () => {
    await runNext('Add a user')
    expect(await logIn('bob@example.com', 'hunter2-hunter2')).toBe('accepted')
    expect((await accountOf('bob')).passwordHash).toMatch(/^\$argon2id\$/)
  })

  test('the list', async () => {
    const rows = await runNext('List users')
    expect(rows.map((row) => row.address)).toEqual(['alice@example.com', 'bob@example.com'])
    expect(rows[1]).toMatchObject({ quota_octets: String(2 ** 30), suspended: false })
  })

  test('a changed password', async () => {
    const before = (await accountOf('alice')).fingerprint
    await runNext('Change a password')
    expect((await accountOf('alice')).fingerprint).not.toBe(before)
    expect(await logIn('alice@example.com', 'correct horse')).toBe('bad-credentials')
    expect(await logIn('alice@example.com', 'battery staple')).toBe('accepted')
  })

  test('a quota', async () => {
    await runNext('Set a quota')
    const rows = await database.db.kysely
      .selectFrom('users')
      .select(['local_part', 'quota_octets', 'quota_messages'])
      .orderBy('local_part')
      .execute()
    expect(rows).toEqual([
      { local_part: 'alice', quota_octets: 524_288_000, quota_messages: 10_000 },
      { local_part: 'bob', quota_octets: 2 ** 30, quota_messages: null },
    ])
  })

  test('a quota of the domain, lifted again', async () => {
    await runNext('Set a quota')
    const { rows } = await client.query(`select d.over_quota, q.quota_octets from domains d
      left join domain_quotas q using (domain_id)`)
    expect(rows).toEqual([{ over_quota: 'refuse', quota_octets: null }])
  })

  test('usage', async () => {
    const rows = await runNext('Usage')
    expect(rows.map(({ address, quota_messages: messages }) => [address, messages])).toEqual([
      ['alice@example.com', 10_000],
      ['bob@example.com', null],
    ])
  })

  test('aliases', async () => {
    const found = async (domainName: string, localPart: string) =>
      (await selectRecipients(database.db, domainName, localPart)).map((each) => each.localPart)
    await runNext('Aliases')
    expect(await found('example.com', 'sales')).toEqual(['bob'])
    expect(await found('example.com', 'anybody')).toEqual(['alice'])
    await runNext('Aliases')
    expect(await found('example.net', 'Sales')).toEqual(['bob'])
    await runNext('Aliases')
    expect(await found('example.net', 'bob+x')).toEqual(['bob'])
    expect(await found('example.com', 'anybody')).toEqual([])
    expect(await runNext('Aliases')).toEqual([
      { recipient: 'bob@example.com', is_over_quota: false },
    ])
    await runNext('Aliases')
    expect(await found('example.net', 'sales')).toEqual([])
    expect(await found('example.com', 'sales')).toEqual([])
  })

  test('suspended, and resumed', async () => {
    await runNext('Suspend and resume')
    expect(await logIn('alice@example.com', 'battery staple')).toBe('suspended')
    expect(await logIn('bob@example.com', 'hunter2-hunter2')).toBe('suspended')
    await runNext('Suspend and resume')
    expect(await logIn('alice@example.com', 'battery staple')).toBe('accepted')
    expect(await logIn('bob@example.com', 'hunter2-hunter2')).toBe('accepted')
  })

  test('sessions, and the end of one', async () => {
    const alice = await accountOf('alice')
    await putSession(database.db, alice)
    await putSession(database.db, await accountOf('bob'))
    expect(await runNext('Who is logged in')).toMatchObject([
      { address: 'alice@example.com', client: '192.0.2.1', hostname: 'pop1.example', pid: 4711 },
      { address: 'bob@example.com' },
    ])
    expect(await runNext('End a session')).toEqual([{ kick: true }])
    expect(await sessionCount(database.db, alice)).toBe(0)
    expect(await sessionCount(database.db, await accountOf('bob'))).toBe(1)
  })

  test('messages go to the trash and the counters stay right', async () => {
    const alice: Ids = await accountOf('alice')
    for (const text of ['1\r\n', '22\r\n', '333\r\n'])
      await putMessage(database.db, alice.domainId, [alice.userId], text)
    await putSession(database.db, alice)
    const block = remaining[0]?.text ?? ''
    await expect(client.query(block)).rejects.toMatchObject({ code: '55006' })
    await client.query("select kick('alice@example.com')")
    expect(await runNext('Delete messages')).toEqual([{ delete_messages: 2 }])
    const { rows } = await client.query('select uid from messages')
    expect(rows).toEqual([{ uid: 2 }])
    expect((await client.query('select uid from trash order by uid')).rows).toEqual([
      { uid: 1 },
      { uid: 3 },
    ])
    expect(await checkMaildrops(database.db, alice.domainId, false)).toEqual([])
    await runNext('Delete messages')
    expect((await client.query('select trash_days from domains')).rows).toEqual([
      { trash_days: 30 },
    ])
  })

  test('the log names who deleted, the trash gives it back', async () => {
    const [deleting] = await runNext('Who took which message')
    expect(deleting).toMatchObject({
      client: 'sql',
      fetched_uids: null,
      deleted_uids: '{[1,2),[3,4)}',
    })
    expect(await runNext('Who took which message')).toEqual([{ keep_session_log: 0 }])
    const results = (await client.query(remaining.shift()?.text ?? '')) as unknown as {
      rows: unknown[]
    }[]
    expect(results.map(({ rows }) => rows)).toEqual([
      [{ session_id: deleting?.session_id, deleted_at: deleting?.ended_at, uids: [1, 3] }],
      [{ restore_messages: 2 }],
      [{ restore_messages: 0 }],
    ])
    const { domainId } = await accountOf('alice')
    expect(await checkMaildrops(database.db, domainId, false)).toEqual([])
  })

  test('messages and users are forgotten at once', async () => {
    const bob: Ids = await accountOf('bob')
    await putMessage(database.db, bob.domainId, [bob.userId], 'of Bob\r\n')
    const bodies = async () => (await client.query('select from bodies')).rowCount
    expect(await bodies()).toBe(4)
    expect(await runNext('Forget messages, forget a user')).toEqual([{ erase_user: 1 }])
    expect(await bodies()).toBe(2)
    const { rows } = await client.query('select uid from messages order by uid')
    expect(rows).toEqual([{ uid: 1 }, { uid: 3 }])
    expect(await checkMaildrops(database.db, bob.domainId, false)).toEqual([])
    await runNext('Forget messages, forget a user')
  })

  test('app passwords, then nothing but app passwords', async () => {
    const [added] = await runNext('App passwords')
    const phone = String(added?.add_app_password)
    expect(await logIn('alice@example.com', phone)).toBe('accepted')
    expect(await logIn('bob@example.com', phone)).toBe('bad-credentials')
    expect(await runNext('App passwords')).toEqual([{ revoke_credential: true }])
    expect(await logIn('alice@example.com', 'battery staple')).toBe('accepted')
    await runNext('App passwords')
    expect(await logIn('alice@example.com', 'battery staple')).toBe('bad-credentials')
    expect(await logIn('alice@example.com', phone)).toBe('accepted')
  })

  test('policies, and a host name of the domain', async () => {
    await runNext('Policies')
    const policy = { loginDelaySeconds: 30, secondLogin: 'take-over' }
    expect(await accountOf('alice')).toMatchObject({ ...policy, expireDays: undefined })
    expect(await accountOf('bob')).toMatchObject({ ...policy, expireDays: 90 })
    await runNext('Policies')
    expect((await client.query('select host_name from domain_hosts')).rows).toEqual([
      { host_name: 'pop.example.com' },
    ])
  })

  test('a legal hold, and its end', async () => {
    expect(await runNext('Legal hold')).toMatchObject([
      { held: 'alice@example.com', reason: 'case 2026-17' },
    ])
    await expect(client.query("select remove_domain('example.com')")).rejects.toMatchObject({
      constraint: 'held_users_domain_id_user_id_fkey',
    })
    await expect(
      client.query("select delete_messages('alice@example.com', '{}')"),
    ).rejects.toMatchObject({ code: '23001' })
    expect(await runNext('Legal hold')).toEqual([{ release_hold: true }])
  })

  test('failed logins are forgotten', async () => {
    await client.query(`insert into throttles (key, failures, recent, updated_at)
      values ('user alice@example.com', 9, '{}', now()), ('user bob@example.com', 1, '{}', now())`)
    expect(await runNext('Failed logins')).toEqual([{ clear_throttle: 1 }])
    expect((await client.query('select key from throttles')).rows).toEqual([
      { key: 'user bob@example.com' },
    ])
  })

  test('what an MTA is told', async () => {
    expect(await runNext('Ask as an MTA does')).toEqual([{ deliverable: 'yes' }])
  })

  test('a user goes, a domain goes with all that is left', async () => {
    const { domainId } = await accountOf('bob')
    await runNext('Remove a user, remove a domain')
    expect(await selectRecipients(database.db, 'example.com', 'bob')).toEqual([])
    expect(await selectRecipients(database.db, 'example.com', 'alice')).toHaveLength(1)
    await runNext('Remove a user, remove a domain')
    for (const table of [
      'domains',
      'users',
      'maildrops',
      'messages',
      'trash',
      'bodies',
      'sessions',
    ])
      expect(
        (await client.query(`select from ${table} where domain_id = $1`, [domainId])).rowCount,
        table,
      ).toBe(0)
  })

  test('what is refused is refused by the constraint that the page names', async () => {
    await runNext('What is refused')
    expect(remaining).toEqual([])
    for (const statement of refusedStatements()) {
      const error = await client.query(statement.text).then(
        () => undefined,
        (reason: unknown) => reason,
      )
      expect(error, statement.text).toBeInstanceOf(DatabaseError)
      expect((error as DatabaseError).constraint, statement.text).toBe(statement.constraint)
    }
  })
})

function refusedStatements(): { constraint: string; text: string }[] {
  const text = blocks.filter((block) => block.isRefused).map((block) => block.text)
  return [...text.join('\n').matchAll(/^-- (\w+).*\n([^;]+;)$/gm)].map((match) => ({
    constraint: match[1] ?? '',
    text: match[2] ?? '',
  }))
}

describe('constraints', () => {
  const inTables = async (): Promise<string[]> => {
    const { rows } = await client.query<{ name: string }>(`
      select conname as name from pg_constraint
      where conrelid in ('domains'::regclass, 'users'::regclass) and contype in ('c', 'f', 'u')
      union select 'users_address_key' from pg_indexes where indexname = 'users_address_key'
      order by 1`)
    return rows.map((row) => row.name)
  }

  test('the page names every one of domains and users', async () => {
    const named = new Set(refusedStatements().map((statement) => statement.constraint))
    expect((await inTables()).filter((name) => !named.has(name))).toEqual([])
  })

  test('the program has words for every one, and for none that there is not', async () => {
    const worded = wordedConstraints()
    expect((await inTables()).filter((name) => !worded.includes(name))).toEqual([])
    const { rows } = await client.query<{ name: string }>(`
      select conname as name from pg_constraint
      union select indexname from pg_indexes where schemaname = 'public'`)
    const all = new Set(rows.map((row) => row.name))
    expect(worded.filter((name) => !all.has(name))).toEqual([])
  })
})

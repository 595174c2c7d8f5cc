/** One tenant and another on the same node, the same connections, the same names. */
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { constraintOf } from '../../../src/storage/postgres/sqlstate.ts'
import { putMessage } from '../../support/mail.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const DOMAINS = Array.from({ length: 12 }, (_, i) => `tenant${i}.test`)
const contentOf = (domain: string): string => `Subject: of ${domain}\r\n\r\n${domain}\r\n`

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  for (const domain of DOMAINS) {
    const ids = await addUser(database.db, `sales@${domain}`, { password: `secret of ${domain}` })
    await putMessage(database.db, ids.domainId, [ids.userId], contentOf(domain))
  }
  node = await startTestNode({ url: database.url })
})
afterAll(async () => {
  await node?.stop()
  await database?.close()
})

const refused = async (name: string, password: string): Promise<boolean> => {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${name}`)
  const reply = await client.ask(`PASS ${password}`)
  client.socket.destroy()
  return reply.startsWith('-ERR [AUTH]')
}

/** What a session or transaction has set on a connection and left there. */
const LEFT_BEHIND = {
  name: 'left-behind',
  text: `select coalesce(string_agg(name || '=' || setting, ' ' order by name), 'nothing')
      || ' as ' || current_user || ' for ' || session_user
    from pg_settings where source = 'session'`,
}

const leftBehind = async (db: Database): Promise<string[]> => {
  const rows = await Promise.all([
    db.hot(LEFT_BEHIND, []),
    ...Array.from({ length: 4 }, () => db.bulk(LEFT_BEHIND, [])),
  ])
  return rows.map(([row]) => String(row?.[0]))
}

test('interleaved sessions of namesakes see and delete their own mail alone', async () => {
  const before = await leftBehind(node.db)
  const clients = await Promise.all(
    DOMAINS.map((domain) =>
      Pop3Client.login(node.address, `sales@${domain}`, `secret of ${domain}`),
    ),
  )
  for (let round = 0; round < 5; round++) {
    const read = await Promise.all(clients.map((client) => client.retrieve('RETR 1')))
    expect(read.map(String)).toEqual(DOMAINS.map(contentOf))
  }
  await Promise.all(clients.map((client) => client.ask('DELE 1')))
  const [first] = clients
  expect(await first?.ask('QUIT')).toMatch(/^\+OK/)
  for (const client of clients.slice(1)) client.socket.destroy()
  await Promise.all(clients.map((client) => client.closed))
  const { rows } = await sql<{ name: string }>`
    select name from domains join messages using (domain_id)`.execute(database.db.kysely)
  expect(rows.map(({ name }) => name).sort()).toEqual(DOMAINS.slice(1).sort())
  expect(await leftBehind(node.db)).toEqual(before)
  expect(new Set(before).size).toBe(1)
  // PgBouncer sets the client's own parameters.
  if (!isPooled) expect(before[0]).toMatch(/^nothing as /)
})

test('the password of one namesake is wrong for all others, just verified or not', async () => {
  const [own = '', other = ''] = DOMAINS
  expect(await refused(`sales@${other}`, `secret of ${own}`)).toBe(true)
  const client = await Pop3Client.login(node.address, `sales@${own}`, `secret of ${own}`)
  expect(await refused(`sales@${other}`, `secret of ${own}`)).toBe(true)
  expect(await refused('sales', `secret of ${own}`)).toBe(true)
  client.socket.destroy()
})

test.each([
  ['empty', ''],
  ['of 71 octets', 'x'.repeat(71)],
  ['of 100000 octets (CVE-2019-7524)', 'x'.repeat(100_000)],
  ['with a blank', 'a b'],
  ['with a line end', 'a\r\n2 b'],
  ['beyond ASCII', 'é'],
])('a unique-id %s cannot be stored, so none is ever sent', async (_, uniqueId) => {
  const failure = await sql`update messages set unique_id = ${uniqueId}`
    .execute(database.db.kysely)
    .catch((error: unknown) => error)
  expect(constraintOf(failure)).toBe('messages_unique_id_is_rfc_1939')
})

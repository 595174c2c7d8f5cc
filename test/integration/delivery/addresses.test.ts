/**
 * Mail for what is no user's own address: aliases, domains that stand for others, separators and
 * catch-alls, over a real socket, and in which order they are looked for. What the SQL function for MTAs
 * says is the same in every case.
 */
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { updateDomainQuota } from '../../../src/storage/tenants/domains.ts'
import type { LineClient } from '../../support/line-client.ts'
import {
  begin,
  DELIVERED,
  openLmtp,
  readStored,
  sendMail,
  startTestLmtp,
  type TestLmtp,
} from '../../support/lmtp.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

interface User {
  domainId: number
  userId: number
}

let database: TestDatabase
let lmtp: TestLmtp
let client: LineClient
const users = new Map<string, User>()

const USERS = [
  'alice@one.test',
  'bob@one.test',
  'Carol@two.test',
  'dora@two.test',
  'plus+user@one.test',
  'eve@off.test',
  'own@stands.test',
  'own@one.test',
]

beforeAll(async () => {
  database = await openTestDatabase()
  for (const address of USERS) users.set(address, await addUser(database.db, address))
  await addDomain(database.db, 'stands.test')
  for (const [alias, target] of [
    ['sales@one.test', 'alice@one.test'],
    ['all@one.test', 'alice@one.test'],
    ['all@one.test', 'bob@one.test'],
    ['all@one.test', 'CAROL@two.test'],
    ['Plus@One.test', 'bob@one.test'],
    ['plus+alias@one.test', 'carol@two.test'],
    ['@two.test', 'dora@two.test'],
    ['@two.test', 'alice@one.test'],
    ['eva@off.test', 'eve@off.test'],
    ['@off.test', 'eve@off.test'],
  ])
    await sql`select add_alias(${alias}, ${target})`.execute(database.db.kysely)
  // Under the name of an alias that was there before.
  await sql`select add_alias('late@one.test', 'alice@one.test')`.execute(database.db.kysely)
  users.set('late@one.test', await addUser(database.db, 'late@one.test'))
  await sql`select set_domain_alias('stands.test', 'one.test')`.execute(database.db.kysely)
  await sql`update domains set separator = '+' where name = 'one.test'`.execute(database.db.kysely)
  await sql`update domains set separator = '-' where name = 'two.test'`.execute(database.db.kysely)
  lmtp = await startTestLmtp(database.db)
  client = await openLmtp(lmtp)
})

afterAll(async () => {
  client?.destroy()
  await lmtp?.stop()
  await database?.close()
})

/** Who got a message that was sent to `address`; undefined: RCPT was refused. */
async function deliveredTo(address: string): Promise<string[] | undefined> {
  const before = await counts()
  await client.ask('MAIL FROM:<>')
  const reply = await client.ask(`RCPT TO:<${address}>`)
  if (!reply.startsWith('250 ')) {
    expect(reply).toBe('550 5.1.1 no such user here')
    await client.ask('RSET')
    return undefined
  }
  await client.ask('DATA')
  expect(await client.ask('x\r\n.')).toMatch(DELIVERED)
  const after = await counts()
  return [...after].flatMap(([user, count]) => Array(count - (before.get(user) ?? 0)).fill(user))
}

async function counts(): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  for (const [address, user] of users)
    found.set(address, (await readStored(database.db, user)).length)
  return found
}

async function foundBySql(address: string): Promise<string[] | undefined> {
  const { rows } = await sql<{ recipient: string }>`
    select recipient from find_recipients(${address})`.execute(database.db.kysely)
  return rows.length === 0 ? undefined : rows.map(({ recipient }) => recipient)
}

describe('whom an address names', () => {
  test.each<[string, string, string[] | undefined]>([
    ['a user', 'ALICE@one.test', ['alice@one.test']],
    ['an alias, in any case', 'Sales@ONE.test', ['alice@one.test']],
    [
      'several, in another domain too',
      'all@one.test',
      ['alice@one.test', 'bob@one.test', 'Carol@two.test'],
    ],
    ['a name before the separator', 'alice+shop@one.test', ['alice@one.test']],
    ['up to the first separator', 'alice+a+b@one.test', ['alice@one.test']],
    ['the separator of the domain only', 'alice-shop@one.test', undefined],
    ['another separator', 'carol-x@two.test', ['Carol@two.test']],
    ['an alias before the separator', 'sales+x@one.test', ['alice@one.test']],
    ['nothing before the separator', '+x@one.test', undefined],
    ['a user of that very name before all else', 'plus+user@one.test', ['plus+user@one.test']],
    ['an alias of that very name before a stripped one', 'plus+alias@one.test', ['Carol@two.test']],
    ['the stripped one', 'plus+else@one.test', ['bob@one.test']],
    ['a user before an alias', 'late@one.test', ['late@one.test']],
    ['a user before an alias, stripped', 'late+x@one.test', ['late@one.test']],
    ['a user before an alias, by the other domain', 'late@stands.test', ['late@one.test']],
    ['the catch-all', 'anybody@two.test', ['alice@one.test', 'dora@two.test']],
    ['a user before the catch-all', 'dora@two.test', ['dora@two.test']],
    ['nobody', 'nobody@one.test', undefined],
    ['nobody with a separator', 'nobody+x@one.test', undefined],
    ['a user by the domain that stands for', 'alice@stands.test', ['alice@one.test']],
    ['an alias by the domain that stands for', 'sales@stands.test', ['alice@one.test']],
    ['its separator too', 'alice+x@stands.test', ['alice@one.test']],
    ['its own user first', 'own@stands.test', ['own@stands.test']],
    ['nobody by the domain that stands for', 'nobody@stands.test', undefined],
    ['what only looks like the catch-all', '""@two.test', ['alice@one.test', 'dora@two.test']],
    ['no domain of ours', 'alice@elsewhere.test', undefined],
  ])('%s: %s', async (_, address, expected) => {
    expect((await deliveredTo(address))?.sort()).toEqual(expected?.sort())
    if (!address.includes('"'))
      expect((await foundBySql(address))?.sort()).toEqual(expected?.sort())
  })

  test('Delivered-To names the user, not the alias, and each domain has its own body', async () => {
    await sendMail(client, 'a@sender.example', ['all@one.test'], Buffer.from('hello\n'))
    const copies = await Promise.all(
      ['alice@one.test', 'bob@one.test', 'Carol@two.test'].map(async (address) => {
        const user = users.get(address) as User
        return { address, copy: (await readStored(database.db, user)).at(-1) }
      }),
    )
    for (const { address, copy } of copies) {
      expect(copy?.prefix).toContain(`\r\nDelivered-To: ${address}\r\n`)
      expect(copy?.prefix.match(/@(one|two)\.test/g)).toHaveLength(2) // and what the sender wrote
      expect(copy?.body.toString()).toBe('hello\r\n')
    }
    const [alice, bob, carol] = copies.map(({ copy }) => copy?.bodyId)
    expect(alice).toBe(bob)
    expect(carol).not.toBe(alice)
  })

  test('a user who is meant several times has one copy; each RCPT has its reply', async () => {
    const before = await counts()
    const recipients = ['alice@one.test', 'all@one.test', 'sales@one.test', 'alice+x@stands.test']
    const replies = await sendMail(client, '', recipients, Buffer.from('once\n'))
    expect(replies).toEqual(Array(4).fill(expect.stringMatching(DELIVERED)))
    const after = await counts()
    for (const address of ['alice@one.test', 'bob@one.test', 'Carol@two.test'])
      expect((after.get(address) ?? 0) - (before.get(address) ?? 0), address).toBe(1)
  })

  test('several stretches go to all targets', async () => {
    const content = Buffer.from(`${'x'.repeat(998)}\r\n`.repeat(600))
    const [reply] = await sendMail(client, '', ['all@one.test'], content)
    expect(reply).toMatch(DELIVERED)
    for (const address of ['alice@one.test', 'Carol@two.test']) {
      const last = (await readStored(database.db, users.get(address) as User)).at(-1)
      expect(last?.body.equals(content)).toBe(true)
    }
  })
})

describe('switched by domain', () => {
  const set = (change: string) =>
    sql`update domains set ${sql.raw(change)} where name = 'off.test'`.execute(database.db.kysely)

  test('aliases off: the catch-all has it; that off too: nobody; on again', async () => {
    expect(await deliveredTo('eva@off.test')).toEqual(['eve@off.test'])
    await set('aliases_allowed = false, catch_all_allowed = false')
    expect(await deliveredTo('eva@off.test')).toBeUndefined()
    expect(await deliveredTo('anybody@off.test')).toBeUndefined()
    expect(await deliveredTo('eve@off.test')).toEqual(['eve@off.test'])
    expect(await foundBySql('eva@off.test')).toBeUndefined()
    await set('catch_all_allowed = true')
    expect(await deliveredTo('eva@off.test')).toEqual(['eve@off.test'])
    await set('aliases_allowed = true, catch_all_allowed = false')
    expect(await deliveredTo('eva@off.test')).toEqual(['eve@off.test'])
    expect(await deliveredTo('anybody@off.test')).toBeUndefined()
    expect(await deliveredTo('eve+x@off.test')).toBeUndefined()
  })
})

describe('a target that is gone', () => {
  test('is passed over; an alias of which all are gone is no address', async () => {
    const { kysely } = database.db
    users.set('fred@gone.test', await addUser(database.db, 'fred@gone.test'))
    await addUser(database.db, 'gina@gone.test')
    await sql`select add_alias('both@gone.test', t) from unnest(
      '{fred@gone.test,gina@gone.test}'::text[]) t`.execute(kysely)
    await sql`select remove_user('gina@gone.test')`.execute(kysely)
    expect(await deliveredTo('both@gone.test')).toEqual(['fred@gone.test'])
    // As by a stray DELETE, which leaves the row of the alias.
    users.delete('fred@gone.test')
    await sql`delete from users u using find_user('fred@gone.test') f
      where u.domain_id = f.domain_id and u.user_id = f.user_id`.execute(kysely)
    expect(await deliveredTo('both@gone.test')).toBeUndefined()
    expect(await foundBySql('both@gone.test')).toBeUndefined()
  })

  test('while the message comes: the others have it, and that is a 250', async () => {
    const { kysely } = database.db
    users.set('hal@gone.test', await addUser(database.db, 'hal@gone.test'))
    await addUser(database.db, 'ida@gone.test')
    await sql`select add_alias('team@gone.test', t) from unnest(
      '{hal@gone.test,ida@gone.test}'::text[]) t`.execute(kysely)
    await begin(client, '', ['team@gone.test'])
    await client.ask('DATA')
    await sql`select remove_user('ida@gone.test')`.execute(kysely)
    expect(await client.ask('x\r\n.')).toMatch(DELIVERED)
    expect(await readStored(database.db, users.get('hal@gone.test') as User)).toHaveLength(1)
  })
})

test('the reply after DATA has the id of the log line and of Received', async () => {
  const user = await addUser(database.db, 'found@id.test')
  const from = lmtp.logged.length
  const [reply = ''] = await sendMail(client, '', ['found@id.test'], Buffer.from('x\n'))
  const id = DELIVERED.exec(reply)?.[1]
  expect(id).toBeDefined()
  const [line] = lmtp.logged.slice(from).map((line) => JSON.parse(line))
  expect(line).toMatchObject({ delivery: id, user: 'found@id.test', msg: 'message delivered' })
  const [stored] = await readStored(database.db, user)
  expect(String(stored?.prefix)).toContain(` id ${id}`)
})

describe('no room', () => {
  const ask = async (address: string): Promise<string> => {
    await client.ask('MAIL FROM:<>')
    const reply = await client.ask(`RCPT TO:<${address}>`)
    await client.ask('RSET')
    return reply
  }
  const refuse = (domain: string, what: string) =>
    sql`update domains set over_quota = ${what} where name = ${domain}`.execute(database.db.kysely)

  test('at RCPT: 452 4.2.2 or, if the domain says so, 552 5.2.2', async () => {
    await addUser(database.db, 'full@room.test', { quotaOctets: 0 })
    expect(await ask('full@room.test')).toBe('452 4.2.2 mailbox is full')
    await refuse('room.test', 'refuse')
    expect(await ask('full@room.test')).toBe('552 5.2.2 mailbox is full')
  })

  test('by number of messages, at RCPT and after DATA', async () => {
    const user = await addUser(database.db, 'few@few.test')
    await sql`update users set quota_messages = 2 where user_id = ${user.userId}`.execute(
      database.db.kysely,
    )
    await sendMail(client, '', ['few@few.test'], Buffer.from('1\n'))
    await begin(client, '', ['few@few.test'])
    await client.ask('DATA')
    const other = await openLmtp(lmtp)
    const [second] = await sendMail(other, '', ['few@few.test'], Buffer.from('2\n'))
    other.destroy()
    expect(second).toMatch(DELIVERED)
    expect(await client.ask('x\r\n.')).toBe('452 4.2.2 mailbox is full')
    expect(await ask('few@few.test')).toBe('452 4.2.2 mailbox is full')
    await refuse('few.test', 'refuse')
    expect(await ask('few@few.test')).toBe('552 5.2.2 mailbox is full')
  })

  test('of the domain, after DATA: the log says that it is not the user', async () => {
    await addUser(database.db, 'room@whole.test', { quotaOctets: 10_000 })
    await updateDomainQuota(database.db, 'whole.test', { octets: 1_000, messages: undefined })
    const from = lmtp.logged.length
    const [reply] = await sendMail(client, '', ['room@whole.test'], Buffer.alloc(2_000, 'x\n'))
    expect(reply).toBe('452 4.2.2 mailbox is full')
    const own = await sendMail(client, '', ['room@whole.test'], Buffer.alloc(20_000, 'x\n'))
    expect(own).toEqual(['452 4.2.2 mailbox is full'])
    const lines = lmtp.logged.slice(from).map((line) => JSON.parse(line))
    expect(lines.map(({ user, msg }) => [user, msg])).toEqual([
      ['room@whole.test', 'message not taken: the domain is over its quota'],
      ['room@whole.test', 'message not taken: mailbox is full'],
    ])
  })

  test('for one of an alias at RCPT: nobody has it, as it will come again', async () => {
    await addUser(database.db, 'full@some.test', { quotaOctets: 0 })
    const free = await addUser(database.db, 'free@some.test')
    await sql`select add_alias('some@some.test', t) from unnest(
      '{full@some.test,free@some.test}'::text[]) t`.execute(database.db.kysely)
    expect(await ask('some@some.test')).toBe('452 4.2.2 mailbox is full')
    expect(await readStored(database.db, free)).toEqual([])
  })

  test('for one of an alias after DATA: 552, so that it does not come again and double', async () => {
    await addUser(database.db, 'small@part.test', { quotaOctets: 300 })
    const free = await addUser(database.db, 'free@part.test')
    await sql`select add_alias('part@part.test', t) from unnest(
      '{small@part.test,free@part.test}'::text[]) t`.execute(database.db.kysely)
    const content = Buffer.from(`${'x'.repeat(400)}\n`)
    const [reply] = await sendMail(client, '', ['part@part.test'], content)
    expect(reply).toBe('552 5.2.2 one of several mailboxes is full')
    expect(await readStored(database.db, free)).toHaveLength(1)
    const [alone] = await sendMail(client, '', ['small@part.test'], content)
    expect(alone).toBe('452 4.2.2 mailbox is full')
    await refuse('part.test', 'refuse')
    const [final] = await sendMail(client, '', ['small@part.test'], content)
    expect(final).toBe('552 5.2.2 mailbox is full')
  })
})

test('targets count as recipients: no more than 1000 in one transaction', async () => {
  const { domainId } = await addUser(database.db, 'u0@many.test')
  await sql`insert into users (domain_id, local_part)
    select ${domainId}, 'u' || n from generate_series(1, 99) n`.execute(database.db.kysely)
  await sql`select add_alias('list@many.test', 'u' || n || '@many.test')
    from generate_series(0, 99) n`.execute(database.db.kysely)
  await client.ask('MAIL FROM:<>')
  const replies: string[] = []
  for (let i = 0; i < 11; i++) replies.push(await client.ask('RCPT TO:<list@many.test>'))
  expect(replies.slice(0, 10)).toEqual(Array(10).fill('250 2.1.5 Accepted'))
  expect(replies[10]).toBe('452 4.5.3 too many recipients')
  await client.ask('DATA')
  client.send('x\r\n.\r\n')
  expect(await client.replies(10)).toEqual(Array(10).fill(expect.stringMatching(DELIVERED)))
  const { rows } = await sql<{ copies: number }>`select count(*) as copies from messages
    where domain_id = ${domainId}`.execute(database.db.kysely)
  expect(Number(rows[0]?.copies)).toBe(100)
})

/** RFC 1939 §6 UPDATE: all marked messages or none, +OK only after the commit, a lost answer resolved. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'

let database: TestDatabase
let proxy: TcpProxy
let node: TestNode
let user: { domainId: number; userId: number }

beforeEach(async () => {
  database = await openTestDatabase()
  const url = new URL(database.url)
  proxy = await TcpProxy.open(Number(url.port))
  url.hostname = '127.0.0.1'
  url.port = String(proxy.port)
  node = await startTestNode({ url: url.toString() })
  user = await addUser(database.db, 'alice@example.test', { password: 'secret' })
  for (const text of ['one', 'two', 'three'])
    await putMessage(database.db, user.domainId, [user.userId], `A: b\r\n\r\n${text}\r\n`)
})

afterEach(async () => {
  await node.stop()
  await proxy.close()
  await database.close()
})

const login = () => Pop3Client.login(node.address, 'alice@example.test', 'secret')

const uidsIn = async (table: 'messages' | 'trash'): Promise<number[]> =>
  (await database.db.kysely.selectFrom(table).select('uid').orderBy('uid').execute()).map(
    (row) => row.uid,
  )

const counters = () =>
  database.db.kysely
    .selectFrom('maildrops')
    .select(['message_count', 'octets'])
    .executeTakeFirstOrThrow()

test('QUIT moves what was marked to the trash and corrects the counters', async () => {
  const session = await login()
  await session.ask('DELE 1')
  await session.ask('DELE 3')
  expect(await uidsIn('messages')).toEqual([1, 2, 3])
  expect(await session.ask('QUIT')).toBe(
    '+OK pop.example.test POP3 server signing off (1 message left)',
  )
  expect(await uidsIn('messages')).toEqual([2])
  expect(await uidsIn('trash')).toEqual([1, 3])
  expect(await counters()).toEqual({ message_count: 1, octets: expect.anything() })
})

test('nothing but QUIT deletes: RSET, a drop, a stop of the node', async () => {
  const first = await login()
  await first.ask('DELE 1')
  await first.ask('RSET')
  expect(await first.ask('QUIT')).toContain('3 messages left')
  const second = await login()
  await second.ask('DELE 2')
  await node.stop()
  expect((await second.closed).toString()).toMatch(/^-ERR \[SYS\/TEMP\] [^\r\n]+\r\n$/)
  expect(await uidsIn('messages')).toEqual([1, 2, 3])
  expect(await uidsIn('trash')).toEqual([])
})

/** Acts on the packet that carries the QUIT statement; its text travels at its first use. */
function onCommit(act: (cut: () => void) => void): void {
  proxy.onRequest = (chunk, cut) => {
    if (!/insert into session_log|commit_deletes/i.test(chunk.toString('latin1'))) return
    proxy.onRequest = undefined
    act(cut)
  }
}

test('a QUIT whose answer is lost after the commit is resolved: +OK, because it is true', async () => {
  const session = await login()
  await session.ask('DELE 1')
  await session.ask('DELE 2')
  onCommit((cut) => {
    proxy.swallowAnswers()
    void untilTrashed(2).then(() => {
      proxy.heal()
      cut()
    })
  })
  expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  expect(await uidsIn('messages')).toEqual([3])
  expect(node.logged.join('')).toContain('the lost QUIT is resolved')
})

async function untilTrashed(count: number): Promise<void> {
  while ((await uidsIn('trash')).length !== count);
}

test('a QUIT that the database refused deletes nothing and says so', async () => {
  const session = await login()
  await session.ask('DELE 1')
  await database.db.kysely.schema.alterTable('session_log').renameTo('session_log_away').execute()
  expect(await session.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await database.db.kysely.schema.alterTable('session_log_away').renameTo('session_log').execute()
  expect(await uidsIn('messages')).toEqual([1, 2, 3])
  const again = await login()
  expect(await again.ask('STAT')).toMatch(/^\+OK 3 /)
  await again.ask('QUIT')
})

test('a QUIT that cannot reach the database deletes nothing and says so', async () => {
  const session = await login()
  await session.ask('DELE 1')
  proxy.cut(true)
  await node.keeper.beat() // by now the node knows that its connections are gone
  expect(await session.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  proxy.heal()
  expect(await uidsIn('messages')).toEqual([1, 2, 3])
  // The lease it could not give back is found by the next heartbeat.
  await node.keeper.beat()
  const again = await login()
  expect(await again.ask('QUIT')).toContain('3 messages left')
})

test('a QUIT that was sent into a broken connection is resolved: nothing was deleted', async () => {
  const session = await login()
  await session.ask('DELE 1')
  proxy.cut(true)
  session.send('QUIT\r\n') // the node has not noticed yet: whether it was carried out is in doubt
  await untilLogged('QUIT could not be committed')
  proxy.heal()
  expect(await session.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await uidsIn('messages')).toEqual([1, 2, 3])
  const again = await login()
  expect(await again.ask('QUIT')).toContain('3 messages left')
})

/** The log is written in this process: turns of the event loop are waited for, not time. */
async function untilLogged(text: string): Promise<void> {
  while (!node.logged.join('').includes(text)) await new Promise(setImmediate)
}

test('hundreds of deletes are one commit too', async () => {
  for (let i = 0; i < 300; i++)
    await putMessage(database.db, user.domainId, [user.userId], `A: ${i}\r\n\r\n`)
  const session = await login()
  const commands = Array.from({ length: 303 }, (_, i) => `DELE ${i + 1}\r\n`).join('')
  session.send(commands)
  for (let i = 0; i < 303; i++) expect(await session.line()).toMatch(/^\+OK/)
  expect(await session.ask('QUIT')).toContain('(maildrop empty)')
  expect(await counters()).toMatchObject({ message_count: 0 })
  expect((await uidsIn('trash')).length).toBe(303)
})

/**
 * What the client itself sees of a second login and of LOGIN-DELAY. The rules one by one are tested
 * in test/integration/maildrop.
 */
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let one: TestNode
let two: TestNode
let user: { domainId: number; userId: number }
let name = ''
let count = 0

beforeAll(async () => {
  database = await openTestDatabase()
  one = await startTestNode({ url: database.url })
  two = await startTestNode({ url: database.url })
})

afterAll(async () => {
  await Promise.all([one.stop(), two.stop()])
  await database.close()
})

beforeEach(async () => {
  name = `ada@second${++count}.test`
  user = await addUser(database.db, name, { password: 'secret' })
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\none\r\n')
})

const setDomain = (set: { second_login?: 'wait' | 'take-over'; login_delay_seconds?: number }) =>
  database.db.kysely
    .updateTable('domains')
    .set(set)
    .where('domain_id', '=', user.domainId)
    .execute()

const login = (node: TestNode) => Pop3Client.login(node.address, name, 'secret')

/** A login under way: its reply to PASS is not read yet. */
async function beginLogin(node: TestNode): Promise<Pop3Client> {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${name}`)
  client.send('PASS secret\r\n')
  return client
}

test('a login waits for the QUIT of the session before it', async () => {
  await setDomain({ second_login: 'wait' })
  const hot = vi.spyOn(two.db, 'hot')
  const first = await login(one)
  await first.ask('DELE 1')
  const second = await beginLogin(two)
  await expect.poll(() => hot.mock.calls.some(([{ name }]) => name === 'lease-acquire')).toBe(true)
  expect(await first.ask('QUIT')).toMatch(/^\+OK/)
  expect(await second.line()).toMatch(/^\+OK/)
  expect(await second.ask('STAT')).toBe('+OK 0 0')
  await second.ask('QUIT')
})

test('a login takes over a session that was idle for a minute, and the marks of that are void', async () => {
  await setDomain({ second_login: 'take-over' })
  const track = vi.spyOn(one.keeper, 'track')
  const phone = await login(one)
  await phone.ask('DELE 1')
  const session = track.mock.calls[0]?.[0]
  if (session === undefined) throw new Error('the session is not tracked')
  const idle = vi.spyOn(session, 'idleMs') // the minute is not waited for
  const second = await beginLogin(two)
  await expect
    .poll(async () => {
      const rows = await database.db.kysely
        .selectFrom('sessions')
        .select('wanted_at')
        .where('domain_id', '=', user.domainId)
        .execute()
      return rows[0]?.wanted_at ?? null
    })
    .not.toBeNull()
  await one.keeper.beat()
  expect(idle).toHaveBeenCalled()
  expect(await phone.ask('NOOP')).toMatch(/^\+OK/)
  idle.mockReturnValue(60_000)
  await one.keeper.beat()
  expect(await phone.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await second.line()).toMatch(/^\+OK/)
  expect(await second.ask('STAT')).toMatch(/^\+OK 1 /)
  await second.ask('QUIT')
})

test('a login too soon after the last one is told [LOGIN-DELAY]', async () => {
  await setDomain({ login_delay_seconds: 60 })
  const first = await login(one)
  await first.ask('QUIT')
  await expect(login(two)).rejects.toThrow('-ERR [LOGIN-DELAY]')
})

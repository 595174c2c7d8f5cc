/** The way to PostgreSQL is slow, or cut in the middle of a message: late, but never wrong. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { longMessage, putMessage } from '../../support/mail.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { until } from '../../torture/faults/means/until.ts'
import {
  addOwner,
  deliver,
  logIn,
  type NodeBehindProxy,
  type Owner,
  replyToLogin,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

const SLOW_MS = 200
const MESSAGE = longMessage(5_000_000)

let database: TestDatabase
let behind: NodeBehindProxy
let alice: Owner

beforeEach(async () => {
  database = await openTestDatabase()
  alice = await addOwner(database, 'alice@line.test', 2)
  behind = await startBehindProxy(database.url)
})

afterEach(async () => {
  await behind.stop()
  await database.close()
})

test('slow in each direction: everything is as it is, only later', async () => {
  const { node, proxy, pop3, lmtp } = behind
  proxy.slow(SLOW_MS)
  const session = await logIn(pop3, alice)
  expect((await session.retrieve('RETR 1')).toString()).toContain('message 1')
  await session.ask('DELE 1')
  await expect(logIn(pop3, alice)).rejects.toThrow('[IN-USE]')
  expect(await deliver(lmtp, alice, 'slowly')).toMatch(/^250 /)
  expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  expect(await uidsIn(database, 'messages', alice)).toEqual([2, 3])
  expect(node.records.filter(({ level }) => level === 'error')).toEqual([])
})

test('cut in the middle of a message: no end that could be taken for one, and the next RETR has it', async () => {
  const { proxy, pop3 } = behind
  await putMessage(database.db, alice.domainId, [alice.userId], MESSAGE)
  const session = await logIn(pop3, alice)
  let answered = 0
  proxy.onAnswer = (piece) => {
    answered += piece.length
    if (answered > MESSAGE.length / 2) proxy.cut(true)
    return undefined
  }
  expect(await session.ask('RETR 3')).toMatch(/^\+OK /)
  const cut = (await session.closed).toString('latin1')
  expect(cut.length).toBeLessThan(MESSAGE.length)
  expect(cut).not.toMatch(/\r\n\.\r\n|\r\n-ERR/)
  expect(await replyToLogin(pop3, alice)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  proxy.heal()
  await until('a login is taken again', async () => (await replyToLogin(pop3, alice))[0] === '+')
  const again = await logInSoon()
  expect((await again.retrieve('RETR 3')).equals(MESSAGE)).toBe(true)
  await again.ask('QUIT')
})

/** What went away without QUIT a moment ago gives its lease back first. */
async function logInSoon() {
  let session: Awaited<ReturnType<typeof logIn>> | undefined
  await until('the maildrop is free', async () => {
    session = await logIn(behind.pop3, alice).catch(() => undefined)
    return session !== undefined
  })
  return session as Awaited<ReturnType<typeof logIn>>
}

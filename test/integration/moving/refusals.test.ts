/** What an old server says of a password, and what that costs who guesses, or tells the log. */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { Throttle } from '../../../src/mail/auth/throttle.ts'
import { addUser } from '../../support/postgres.ts'
import { MovingWorld, PASSWORD, tryLogin } from './setting.ts'

let world: MovingWorld

beforeAll(async () => {
  world = await MovingWorld.open()
})
afterEach(() => world.clear())
afterAll(() => world.database.close())

const forWrong = (answer: string) => (line: string) =>
  line.startsWith('PASS ') && line !== `PASS ${PASSWORD}` ? answer : undefined

test.each([
  '-ERR Login failed, please try again later',
  '-ERR Authentication failed: account may be locked',
  '-ERR [IN-USE] maildrop is in use',
  '-ERR [SYS/TEMP] temporarily',
  'cut',
])('guesses that are answered with %j count as such, and take as long', async (answer) => {
  const { db } = world.database
  const log = { warn: () => {} } as never
  const throttle = new Throttle({ db, log, keyring: undefined })
  const counted = vi.spyOn(throttle, 'recordFailure')
  const { node, domain } = await world.migrate(
    { capabilities: ['USER', 'UIDL'], reply: forWrong(answer) },
    { authenticator: { throttle, failureDelayMs: 50 } },
  )
  const user = `alice@${domain}`
  for (const guess of ['guess-1', 'guess-2']) {
    const began = performance.now()
    expect(await tryLogin(node, user, guess)).toMatch(/^-ERR/)
    // Four times as long as elsewhere.
    expect(performance.now() - began).toBeGreaterThanOrEqual(195)
  }
  expect(counted).toHaveBeenCalledTimes(2)
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^\+OK/)
  expect(counted).toHaveBeenCalledTimes(2)
})

test.each([
  `-ERR [SYS/TEMP] cannot check "PASS ${PASSWORD}" now`,
  `-ERR try again later: ${Buffer.from(PASSWORD).toString('base64')}\x1b[2J`,
])('what the old server repeats of a password stands in no log: %j', async (answer) => {
  const reply = (line: string) => (line.startsWith('PASS ') ? answer : undefined)
  const { node, domain } = await world.migrate({ reply })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await node.untilLogged('lets nobody in now')).toMatch(/-ERR /)
  const logged = node.logged.join('')
  for (const word of [PASSWORD, Buffer.from(PASSWORD).toString('base64').slice(0, 15), '\\u001b'])
    expect(logged).not.toContain(word)
})

test('a user who was given another password meanwhile has that one alone', async () => {
  const meanwhile = async (line: string): Promise<undefined> => {
    if (line.startsWith('PASS ')) await addUser(world.database.db, user, { password: 'Here-77' })
  }
  const { node, domain, old } = await world.migrate({ reply: meanwhile })
  const user = `alice@${domain}`
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[AUTH\]/)
  expect(old.count('PASS')).toBe(1)
  expect(await tryLogin(node, user, 'Here-77')).toMatch(/^\+OK/)
})

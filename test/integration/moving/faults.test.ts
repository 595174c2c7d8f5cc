/** Old servers that fail for a moment: nobody has moved without what they would have handed out. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Pop3Client } from '../../support/pop3-client.ts'
import type { TestNode } from '../../support/pop3-node.ts'
import { listing, MovingWorld, PASSWORD, tryLogin } from './setting.ts'

let world: MovingWorld

beforeAll(async () => {
  world = await MovingWorld.open()
})
afterEach(() => world.clear())
afterAll(() => world.database.close())

/** Answers so the first `times` times, then as usual. */
function failing(command: string, answer: string, times = 1) {
  let left = times
  return (line: string): string | undefined => {
    if (line !== command || left === 0) return undefined
    left -= 1
    return answer
  }
}

const ALL = ['1 00000000abc', '2 00000001abc', '3 00000002abc']

async function list(node: TestNode, user: string): Promise<string[]> {
  const client = await Pop3Client.login(node.address, user, PASSWORD)
  const lines = await listing(client)
  await client.ask('QUIT')
  return lines
}

test.each([
  ['UIDL is refused', 'UIDL', '-ERR [SYS/TEMP] is being rebuilt'],
  ['UIDL is refused without a code', 'UIDL', '-ERR is being rebuilt'],
  ['UIDL names some only', 'UIDL', '+OK\r\n1 00000000abc\r\n.'],
  ['LIST is refused', 'LIST', '-ERR not now'],
  ['RETR is refused for now', 'RETR 2', '-ERR [SYS/TEMP] storage is busy'],
])('%s once: the user has not moved, and moves whole the next time', async (_, command, answer) => {
  const { node, domain, domainId } = await world.migrate({ reply: failing(command, answer) })
  const user = `alice@${domain}`
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await world.passwordHashOf(domainId, 'alice')).toBeNull()
  expect(await list(node, user)).toEqual(ALL)
})

test.each([
  ['without CAPA', '-ERR unknown'],
  ['by CAPA', undefined],
])('a server that has no UIDL, %s, moves its users all the same', async (_, capa) => {
  const { node, domain } = await world.migrate({
    ...{ hasUidl: false, capabilities: ['USER'] },
    reply: (line) => (line === 'CAPA' ? capa : undefined),
  })
  expect(await list(node, `alice@${domain}`)).toHaveLength(3)
})

test('a message refused without a code is asked for again on another connection, in its order', async () => {
  const reply = failing('RETR 2', '-ERR cannot')
  const { node, domain, old } = await world.migrate({ reply })
  expect(await list(node, `alice@${domain}`)).toEqual(ALL)
  expect(old.count('USER')).toBe(2)
  expect(old.count('RETR 1')).toBe(1)
  expect(node.logged.join('')).not.toContain('left there')
})

test.each([
  ['for good, once', '-ERR [SYS/PERM] damaged', 1],
  ['twice, without a code', '-ERR damaged', 2],
])('what is refused %s is left there, which the log says', async (_, answer, times) => {
  const { node, domain, old } = await world.migrate({ reply: failing('RETR 2', answer, times) })
  expect((await list(node, `alice@${domain}`)).map((line) => line.slice(2))).toEqual([
    '00000000abc',
    '00000002abc',
  ])
  expect(old.count('RETR 2')).toBe(times)
  expect(await node.untilLogged('left there')).toMatch(/"source":"message 2","reason":"-ERR/)
})

/** IMAP servers that answer with less than they are asked for: a message comes whole or not at all. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from '../admin/program.ts'
import { type ImapStubOptions, startImapStub } from './imap-stub.ts'

const MESSAGE = `Subject: big\r\n\r\n${'0123456789abcdef\r\n'.repeat(40_000)}END\r\n`

let database: TestDatabase
let node: TestNode
let program: Program
let stop: () => Promise<void> = async () => {}
let userCount = 0

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
  program = openProgram({ DATABASE_URL: database.url })
})
afterEach(() => stop())
afterAll(async () => {
  program?.close()
  await node?.stop()
  await database?.close()
})

async function serve(options: Partial<ImapStubOptions>) {
  const own = { message: MESSAGE, ...options }
  const stub = await startImapStub(own)
  stop = stub.stop
  userCount += 1
  const user = `user${userCount}@imap.test`
  const file = join(program.directory, 'users.csv')
  writeFileSync(file, `address,password\n${user},secret\n`)
  const server = ['--server', `127.0.0.1:${stub.port}`, '--security', 'none']
  const run = () => program.run(['import', 'imap', ...server, '--users', file, '--add-domains'])
  return { own, user, run }
}

/** What the maildrop holds. */
async function held(user: string): Promise<string | undefined> {
  await node.keeper.beat()
  const client = await Pop3Client.login(node.address, user, 'secret')
  const stat = await client.ask('STAT')
  const text = stat.startsWith('+OK 1 ') ? (await client.retrieve('RETR 1')).toString() : undefined
  await client.ask('QUIT')
  return text
}

test.each([
  ['64 KiB at once', { pieceMax: 65_536 }],
  ['an odd size at once', { pieceMax: 100_003 }],
  ['all that is asked for, and lists too much', { listed: MESSAGE.length + 40_000 }],
  ['too little at once, and lists too little', { listed: 90_000, pieceMax: 65_536 }],
  ['all that is asked for, and lists nothing', { listed: 0 }],
])('a server that gives %s: the message is whole', async (_, options) => {
  const { user, run } = await serve(options)
  const { status, stdout } = await run()
  expect(stdout).toContain('1 imported')
  expect(status).toBe(0)
  expect(await held(user)).toBe(MESSAGE)
})

test.each([
  ['NIL from the middle on', 262_144],
  ['NIL alone', 0],
])(
  'a server that gives %s: the message is refused, the run goes on, and again mends it',
  async (_, nilFrom) => {
    const { own, user, run } = await serve({ nilFrom })
    const { status, stdout, stderr } = await run()
    expect(stderr).toContain(`the server does not hand it out from octet ${nilFrom} on`)
    expect(stdout).toContain('0 imported, 0 were in already, 1 refused')
    expect(status).toBe(1)
    expect(await held(user)).toBeUndefined()
    own.nilFrom = Number.POSITIVE_INFINITY
    expect((await run()).stdout).toContain('1 imported')
    expect(await held(user)).toBe(MESSAGE)
  },
)

test('a server that has nothing of a message that it lists', async () => {
  const { user, run } = await serve({ message: '', listed: 500 })
  expect((await run()).stderr).toContain('the server hands out none of its 500 octets')
  expect(await held(user)).toBeUndefined()
})

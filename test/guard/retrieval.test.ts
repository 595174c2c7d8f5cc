/** RETR: of 100 messages of 10 KB, and of one of 50 MB by a client that reads slowly. */
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { putMessage } from '../support/mail.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { DatabaseMeter, type Traffic } from './database-meter.ts'
import { expectWithin, say } from './figure.ts'
import { SocketWrites } from './socket-writes.ts'

const PASSWORD = 'secret'
const MESSAGES = 100
const MESSAGE_OCTETS = 10_240
const LARGE_OCTETS = 50_000_000
const PAUSE_EACH_OCTETS = 5_000_000

let database: TestDatabase
let meter: DatabaseMeter
let node: TestNode
let writes: SocketWrites

beforeAll(async () => {
  database = await openTestDatabase()
  const small = await addUser(database.db, 'small@example.test', { password: PASSWORD })
  for (let i = 0; i < MESSAGES; i++)
    await putMessage(database.db, small.domainId, [small.userId], letters(MESSAGE_OCTETS))
  const large = await addUser(database.db, 'large@example.test', { password: PASSWORD })
  await putMessage(database.db, large.domainId, [large.userId], letters(LARGE_OCTETS))
  meter = await DatabaseMeter.open(database.url)
  node = await startTestNode({ url: meter.url })
  // Statements are prepared once a connection: not what is counted here.
  await retrieveAll(async (client) => void (await client.askMulti('RETR 1')))
})
afterEach(() => writes.stop())
afterAll(async () => {
  await node.stop()
  await meter.close()
  await database.close()
})

/** Lines without dots, that do not compress: octets stored, sent and counted are the same. */
function letters(octets: number): Buffer {
  const text = randomBytes(octets).toString('base64url').slice(0, octets)
  return Buffer.from(text.replace(/.{2}(.{62})/g, '$1\r\n'), 'latin1').fill('\r\n', octets - 2)
}

/**
 * Again, once, if the keeper's beat (one in five seconds) came between: it is no RETR's.
 * @returns without what login and QUIT cost
 */
async function retrieveAll(fetch: (client: Pop3Client) => Promise<void>): Promise<Traffic> {
  const traffic = await retrieveOnce(fetch)
  const hasBeat = traffic.statements.some((name) => /^nodes?-/.test(name))
  return hasBeat ? retrieveOnce(fetch) : traffic
}

async function retrieveOnce(fetch: (client: Pop3Client) => Promise<void>): Promise<Traffic> {
  writes = new SocketWrites(node.address)
  const client = await Pop3Client.login(node.address, 'small@example.test', PASSWORD)
  writes.writes = 0
  const traffic = await meter.count(() => fetch(client))
  writes.stop()
  say('100 RETRs', traffic.statements)
  await client.ask('QUIT')
  return traffic
}

const beyondBodies = ({ octetsFrom }: Traffic): number => octetsFrom / MESSAGES - MESSAGE_OCTETS

test('one at a time', async () => {
  let heldMax = 0
  let sent = 0
  const traffic = await retrieveAll(async (client) => {
    heldMax = 0
    sent = 0
    for (let i = 1; i <= MESSAGES; i++) {
      sent += (await client.askMulti(`RETR ${i}`)).raw.length
      heldMax = Math.max(heldMax, meter.traffic.octetsFrom - sent)
    }
  })
  expect(sent).toBe(MESSAGES * MESSAGE_OCTETS)
  expectWithin('100 RETRs one at a time: statements', traffic.statements.length)
  expectWithin('RETR one at a time: octets to the database', traffic.octetsTo / MESSAGES)
  const beyond = beyondBodies(traffic)
  expectWithin('RETR one at a time: octets from the database beyond the message', beyond)
  expectWithin('RETR one at a time: writes to the socket', writes.writes / MESSAGES)
  expectWithin('RETR one at a time: octets held ahead of the client', heldMax)
})

test('pipelined', async () => {
  const numbers = Array.from({ length: MESSAGES }, (_, i) => i + 1)
  const traffic = await retrieveAll(async (client) => {
    client.send(numbers.map((number) => `RETR ${number}\r\n`).join(''))
    let lines = 0
    while (lines < MESSAGES) if ((await client.line()) === '.') lines++
  })
  expectWithin('100 RETRs pipelined: statements', traffic.statements.length)
  const beyond = beyondBodies(traffic)
  expectWithin('RETR pipelined: octets from the database beyond the message', beyond)
  expectWithin('100 RETRs pipelined: writes to the socket', writes.writes)
})

test('of a large message, what is held does not grow with it', async () => {
  writes = new SocketWrites(node.address)
  const client = await Pop3Client.login(node.address, 'large@example.test', PASSWORD)
  let heldMax = 0
  await meter.count(async () => {
    writes.octetsTaken = 0
    meter.onAnswer = () => {
      heldMax = Math.max(heldMax, meter.traffic.octetsFrom - writes.octetsTaken)
    }
    expect(await readSlowly(client)).toBeGreaterThan(LARGE_OCTETS)
    meter.onAnswer = undefined
  })
  expectWithin('RETR of 50 MB by a slow reader: octets held', heldMax)
  client.send('QUIT\r\n')
  await client.closed
})

/** Asks for message 1; now and then reads nothing until the node cannot go on. */
function readSlowly({ socket }: Pop3Client): Promise<number> {
  socket.removeAllListeners('data')
  let received = 0
  let pauseAt = 0
  let end = Buffer.alloc(0)
  return new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length
      end = Buffer.concat([end, chunk]).subarray(-5)
      if (end.toString('latin1') === '\r\n.\r\n') resolve(received)
      if (received < pauseAt) return
      pauseAt += PAUSE_EACH_OCTETS
      socket.pause()
      void meter.untilQuiet().then(() => socket.resume())
    })
    socket.write('RETR 1\r\n')
  })
}

/** node-pop3, the POP3 client of npm, in this process: USER and PASS, in the clear or on POP3S. */
import { readFileSync } from 'node:fs'
import Pop3Command from 'node-pop3'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeClients } from './clients.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

// CLIENT: node-pop3 0.11 leaves the stuffing on, reads all as UTF-8, and gives the last line
// without its end. A dot before the last CRLF of what one read brings ends the message for it.
const NAMES = [...MESSAGES.keys()].filter(
  (name) => !['dots', 'eight-bit', 'dot-field', 'seam'].includes(name),
)

function open(order: Pick<Errand, 'port' | 'address' | 'password'> & Partial<Errand>): Pop3Command {
  const { port, address, password, transport, caFile } = order
  return new Pop3Command({
    host: HOST_NAME,
    port,
    user: address,
    password,
    timeout: 30_000,
    ...(transport === 'POP3S' && { tls: true, tlsOptions: { ca: readFileSync(caFile ?? '') } }),
  })
}

async function retrieve(client: Pop3Command, number: number): Promise<Buffer> {
  return Buffer.from(`${await client.RETR(number)}\r\n`)
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const client = open(errand)
  client.on('error', () => {}) // told by the call as well
  const copies: Buffer[] = []
  try {
    const list = await client.LIST()
    for (let number = 1; number <= list.length; number++) {
      copies.push(await retrieve(client, number))
      await client.DELE(number)
    }
    await client.QUIT()
    return { end: 'fetched', transcript: '', copies }
  } catch (error) {
    const transcript = String(error)
    await client.QUIT()
    return { end: endOf(transcript), transcript, copies }
  }
}

function endOf(told: string): Outcome['end'] {
  if (told.includes('[AUTH]')) return 'wrong password'
  return /certificate|self-signed/.test(told) ? 'untrusted' : 'something else'
}

describeClients('node-pop3', ['swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  it('finds that STAT, LIST, UIDL and TOP agree with RETR', async () => {
    const address = await server.addUser('node-pop3')
    await deliver(server, address, NAMES)
    const client = open({ port: server.pop3Port, address, password: PASSWORD })
    const copies: Buffer[] = []
    for (const index of NAMES.keys()) copies.push(await retrieve(client, index + 1))
    expect(copies.map(nameOf)).toEqual(NAMES)
    for (const copy of copies) expectDelivered(copy, address, nameOf(copy))
    const sizes = copies.map((copy, index) => [String(index + 1), String(copy.length)])
    expect(await client.LIST()).toEqual(sizes)
    const total = copies.reduce((sum, copy) => sum + copy.length, 0)
    expect(await client.STAT()).toBe(`${NAMES.length} ${total}`)
    const uniqueIds = (await client.UIDL()) as string[][]
    expect(new Set(uniqueIds.map(([, id]) => id)).size).toBe(NAMES.length)
    const head = await client.TOP(1, 0)
    expect(copies[0]?.toString().startsWith(head)).toBe(true)
    await client.QUIT()
  })

  const noSasl = 'node-pop3 has USER alone'
  testWaysIn({
    run: runErrand,
    lineEnd: '\r\n',
    names: NAMES,
    isSilent: true,
    cannot: {
      STLS: 'node-pop3 does not have it',
      APOP: noSasl,
      PLAIN: noSasl,
      LOGIN: noSasl,
      'SCRAM-SHA-256': noSasl,
      'SCRAM-SHA-256-PLUS': noSasl,
    },
  })
})

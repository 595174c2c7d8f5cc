/** Perl's Net::POP3, with IO::Socket::SSL and Authen::SASL: what scripts are made of. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeClients, runClient } from './clients.ts'
import { deliver, expectDelivered, MESSAGES } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

const SCRIPT = join(import.meta.dirname, 'sessions', 'net_pop3_client.pl')
const NAMES = [...MESSAGES.keys()]
const NUMBERS = NAMES.map((_, index) => index + 1)

interface Answer {
  /** By number. */
  list: Record<string, string>
  uidl: Record<string, string>
  messages: string[]
  heads: string[]
  error?: { step: 'connect' | 'login'; text: string }
}

async function session(
  order: Pick<Errand, 'port' | 'address' | 'password'> & Partial<Errand>,
  isDeleting = false,
): Promise<{ answer: Answer; transcript: string }> {
  const { transport = 'plain', mechanism = 'USER', caFile = '' } = order
  const input = JSON.stringify({
    ...{ host: HOST_NAME, port: order.port, transport, ca: caFile },
    ...{ mechanism, user: order.address, password: order.password },
    ...{ numbers: NUMBERS, delete: isDeleting },
  })
  const { status, stdout, stderr } = await runClient('perl', [SCRIPT], { input })
  expect(status, stderr).toBe(0)
  return { answer: JSON.parse(stdout.toString()), transcript: stderr }
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const { answer, transcript } = await session(errand, true)
  const { error, messages } = answer
  if (error === undefined)
    return { end: 'fetched', transcript, copies: messages.map((m) => Buffer.from(m, 'latin1')) }
  const told = `${transcript}${error.step}: ${error.text}`
  return { end: endOf(error), transcript: told, copies: [] }
}

function endOf({ step, text }: { step: string; text: string }): Outcome['end'] {
  if (step === 'connect' && text.includes('certificate verify failed')) return 'untrusted'
  return step === 'login' && text.includes('[AUTH]') ? 'wrong password' : 'something else'
}

const NEEDED = ['Net::POP3', 'IO::Socket::SSL', 'Authen::SASL', 'swaks']

describeClients('Net::POP3', NEEDED, () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  it('finds that LIST, UIDL, TOP and RETR agree, again and again', async () => {
    const address = await server.addUser('net-pop3')
    await deliver(server, address)
    const order = { port: server.pop3Port, address, password: PASSWORD }
    const { answer } = await session(order)
    for (const [index, name] of NAMES.entries()) {
      const copy = answer.messages[index] ?? ''
      expectDelivered(Buffer.from(copy, 'latin1'), address, name)
      expect(answer.list[index + 1]).toBe(String(copy.length))
      const head = answer.heads[index] ?? ''
      expect(head).toMatch(/\r\n\r\n$/)
      expect(copy.startsWith(head)).toBe(true)
    }
    expect(new Set(Object.values(answer.uidl)).size).toBe(NAMES.length)
    expect((await session(order)).answer).toEqual(answer)
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\r\n',
    cannot: {
      'SCRAM-SHA-256': 'Authen::SASL 2.16 does not have it',
      'SCRAM-SHA-256-PLUS': 'Authen::SASL does not have it',
    },
  })
})

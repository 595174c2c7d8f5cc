/**
 * Every way in that a client has: transport × mechanism. A client's file says how it is run and how
 * it tells its troubles; here is what must be true each time: it fetches every message octet for
 * octet and deletes it, the server's log says that it came in that way, a wrong password is an
 * authentication failure in the client's own words, and a server that only an unknown authority
 * vouches for is refused. A way that a client does not have is a skipped test that says why.
 */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { APOP_SECRET, DOMAIN, type InteropServer, PASSWORD, startServer } from './server.ts'

const TRANSPORTS = ['plain', 'STLS', 'POP3S'] as const
type Transport = (typeof TRANSPORTS)[number]

/** Mechanism → what the client sends for it, and what the server logs. */
const MECHANISMS = {
  USER: { command: 'USER', logged: 'password' },
  APOP: { command: 'APOP', logged: 'apop' },
  PLAIN: { command: 'AUTH PLAIN', logged: 'password' },
  LOGIN: { command: 'AUTH LOGIN', logged: 'password' },
  'SCRAM-SHA-256': { command: 'AUTH SCRAM-SHA-256', logged: 'scram' },
  'SCRAM-SHA-256-PLUS': { command: 'AUTH SCRAM-SHA-256-PLUS', logged: 'scram' },
}
type Mechanism = keyof typeof MECHANISMS

interface Way {
  transport: Transport
  mechanism: Mechanism
}

/** One run of a client: it is to fetch all there is and delete it. */
export interface Errand extends Way {
  server: InteropServer
  /** pop3Port or pop3sPort */
  port: number
  address: string
  /** The password; for APOP the APOP secret. */
  password: string
  /** PEM file: whom the client is to trust. */
  caFile: string
}

export interface Outcome {
  /** By the client's own words or status; `untrusted`: it did not take the certificate. */
  end: 'fetched' | 'wrong password' | 'untrusted' | 'something else'
  /** What the client tells of the dialogue, with the commands that it sent if it tells them. */
  transcript: string
  copies: Buffer[]
}

export interface LabClient {
  run(errand: Errand): Promise<Outcome>
  /** Of its copies. */
  lineEnd: '\r\n' | '\n'
  /** Those of MESSAGES that it hands over as they are; default: all. */
  names?: readonly string[]
  /** Why it has not a transport, a mechanism, or a mechanism on one transport. */
  cannot?: Partial<Record<Transport | Mechanism | `${Transport} ${Mechanism}`, string>>
  /** Whether transcripts lack the commands: the server's log has to do. */
  isSilent?: boolean
}

/** To be called inside `describeClients`. */
export function testWaysIn(client: LabClient): void {
  // Each alone: some clients use SASL, and some APOP, wherever it is offered.
  const sasl = (Object.keys(MECHANISMS) as Mechanism[]).slice(2)
  for (const mechanisms of [['USER'], ['APOP'], sasl] as const) testOffer(client, mechanisms)
}

function testOffer(client: LabClient, mechanisms: readonly Mechanism[]): void {
  const { names = [...MESSAGES.keys()] } = client
  const ways = mechanisms.flatMap((mechanism) =>
    TRANSPORTS.map((transport) => ({ transport, mechanism })),
  )
  const open = ways.filter((way) => whyNot(client, way) === undefined)
  describe.concurrent(`offered ${mechanisms.join(', ')}`, () => {
    let server: InteropServer | undefined

    beforeAll(async () => {
      if (open.length === 0) return
      server = await startServer({
        hasApop: mechanisms.includes('APOP'),
        hasSasl: mechanisms.includes('PLAIN'),
      })
      const users = open.map((way) => server?.addUser(userOf(way)) ?? '')
      await deliver(server, await Promise.all(users), names)
    })

    afterAll(async () => {
      await server?.stop()
    })

    for (const way of ways) {
      const reason = whyNot(client, way)
      const test = `${way.transport}, ${way.mechanism}`
      if (reason !== undefined) it.skip(`${test}: ${reason}`)
      else
        it(test, async () => {
          if (server !== undefined) await testWay(client, errandOf(server, way), names)
        })
    }
  })
}

/** @returns undefined if the client has this way in */
function whyNot({ cannot = {} }: LabClient, { transport, mechanism }: Way): string | undefined {
  const isBound = mechanism === 'SCRAM-SHA-256-PLUS'
  if (isBound && transport === 'plain') return 'there is no channel to bind to'
  return cannot[transport] ?? cannot[mechanism] ?? cannot[`${transport} ${mechanism}`]
}

function userOf({ transport, mechanism }: Way): string {
  return `${transport}-${mechanism}`.toLowerCase()
}

function errandOf(server: InteropServer, way: Way): Errand {
  return {
    ...way,
    server,
    port: way.transport === 'POP3S' ? server.pop3sPort : server.pop3Port,
    address: `${userOf(way)}@${DOMAIN}`,
    password: way.mechanism === 'APOP' ? APOP_SECRET : PASSWORD,
    caFile: server.caFile,
  }
}

async function testWay(client: LabClient, errand: Errand, names: readonly string[]): Promise<void> {
  const { server, transport, mechanism, address } = errand
  const { command, logged } = MECHANISMS[mechanism]
  if (transport !== 'plain') {
    const wary = await client.run({ ...errand, caFile: server.otherCaFile })
    expect(wary, wary.transcript).toMatchObject({ end: 'untrusted', copies: [] })
  }
  const { end, transcript, copies } = await client.run(errand)
  expect(end, transcript).toBe('fetched')
  expect(copies.map(nameOf).sort()).toEqual([...names].sort())
  for (const copy of copies) expectDelivered(copy, address, nameOf(copy), client.lineEnd)
  const sent = new RegExp(`\\b${command}(?![-\\w])`)
  if (!client.isSilent) expect(transcript).toMatch(sent)
  const tls = transport === 'plain' ? undefined : 'TLSv1.3'
  await vi.waitFor(() => expect(loginsOf(server, address)).toEqual([{ mechanism: logged, tls }]))
  const wrong = await client.run({ ...errand, password: `not ${errand.password}` })
  expect(wrong, wrong.transcript).toMatchObject({ end: 'wrong password', copies: [] })
  const holder = await Holder.open(server.pop3Port, address)
  expect(await holder.ask('STAT')).toBe('+OK 0 0')
  await holder.quit()
}

/** As the server logged them. */
function loginsOf(server: InteropServer, address: string): object[] {
  return server
    .output()
    .split('\n')
    .filter((line) => line.includes('"msg":"login"') && line.includes(`"user":"${address}"`))
    .map((line) => JSON.parse(line))
    .map(({ mechanism, tls }) => ({ mechanism, tls }))
}

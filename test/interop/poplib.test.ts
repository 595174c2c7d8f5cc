/** Python's poplib: strict about line lengths, STAT and the greeting's timestamp. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeClients, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES } from './messages.ts'
import {
  APOP_SECRET,
  HOST,
  HOST_NAME,
  HOSTNAME,
  type InteropServer,
  PASSWORD,
  startServer,
} from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

const SCRIPT = join(import.meta.dirname, 'sessions', 'poplib_client.py')
const NAMES = [...MESSAGES.keys()]

type Command = [method: string, ...args: (string | number)[]]
/** What poplib gives for a multi-line reply: status, lines, octets. */
type Listing = [string, string[], number]

interface Answer {
  greeting: string
  results: unknown[]
  error?: string
}

const octetsOf = (listing: unknown): Buffer => {
  const lines = (listing as Listing)[1]
  return Buffer.from(lines.map((line) => `${line}\r\n`).join(''), 'latin1')
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const { transport, mechanism, port, address, password, caFile } = errand
  const proof = mechanism === 'APOP' ? { apop: password } : { password }
  const numbers = NAMES.map((_, index) => index + 1)
  const commands = ['retr', 'dele'].flatMap((name) => numbers.map((number) => [name, number]))
  const way = { host: HOST_NAME, port, transport, ca: caFile }
  const order = { ...way, user: address, ...proof, commands: [...commands, ['quit']] }
  const result = await runClient('python3', [SCRIPT], { input: JSON.stringify(order) })
  if (result.status !== 0) {
    const isUntrusted = result.stderr.includes('CERTIFICATE_VERIFY_FAILED')
    const end = isUntrusted ? 'untrusted' : 'something else'
    return { end, transcript: result.stderr, copies: [] }
  }
  const answer: Answer = JSON.parse(result.stdout.toString('utf8'))
  const { error = '', results } = answer
  const end = error === '' ? 'fetched' : 'wrong password'
  if (error !== '') expect(error).toMatch(/^-ERR \[AUTH\]/)
  return { end, transcript: error, copies: results.slice(0, numbers.length).map(octetsOf) }
}

describeClients('poplib', ['python3', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: true })
  })

  afterAll(async () => {
    await server.stop()
  })

  async function session(
    user: string,
    commands: Command[],
    proof: { password: string } | { apop: string } = { password: PASSWORD },
  ): Promise<Answer> {
    const order = { host: HOST, port: server.pop3Port, user, ...proof, commands }
    const result = await runClient('python3', [SCRIPT], { input: JSON.stringify(order) })
    expect(result).toMatchObject({ status: 0, stderr: '' })
    return JSON.parse(result.stdout.toString('utf8'))
  }

  it('fetches every message as it was delivered; STAT, LIST and UIDL agree', async () => {
    const address = await server.addUser('poplib-fetch')
    await deliver(server, address)
    const numbers = NAMES.map((_, index) => index + 1)
    const commands: Command[] = [['stat'], ['list'], ['uidl'], ['capa']]
    const retrievals = numbers.map((number): Command => ['retr', number])
    const { results } = await session(address, [...commands, ...retrievals, ['quit']])
    const [stat, list, uidl, capa, ...copies] = results
    const fetched = copies.slice(0, -1).map(octetsOf)
    for (const [index, name] of NAMES.entries())
      expectDelivered(fetched[index] ?? Buffer.alloc(0), address, name)
    const sizes = fetched.map((copy) => copy.length)
    expect(stat).toEqual([NAMES.length, sizes.reduce((sum, size) => sum + size, 0)])
    expect((list as Listing)[1]).toEqual(sizes.map((size, index) => `${index + 1} ${size}`))
    const uniqueIds = (uidl as Listing)[1].map((line) => line.split(' ')[1])
    expect(new Set(uniqueIds).size).toBe(NAMES.length)
    expect(Object.keys(capa as object)).toEqual(expect.arrayContaining(['TOP', 'UIDL', 'USER']))
  })

  it('has its deletions done at QUIT, undone by RSET, and not done when it goes away', async () => {
    const address = await server.addUser('poplib-dele')
    await deliver(server, address, ['plain', 'dots', 'no-body'])
    const count = async (): Promise<unknown> =>
      ((await session(address, [['stat'], ['quit']])).results[0] as number[])[0]
    await session(address, [['dele', 1], ['rset'], ['dele', 2], ['rset'], ['quit']])
    expect(await count()).toBe(3)
    await session(address, [
      ['dele', 1],
      ['dele', 2],
    ]) // closes without QUIT
    expect(await count()).toBe(3)
    await session(address, [['dele', 1], ['dele', 3], ['quit']])
    expect(await count()).toBe(1)
    const { results } = await session(address, [['retr', 1], ['quit']])
    expectDelivered(octetsOf(results[0]), address, 'dots')
  })

  it('reads TOP as the beginning of RETR', async () => {
    const address = await server.addUser('poplib-top')
    await deliver(server, address, ['white-space'])
    const { results } = await session(address, [
      ['retr', 1],
      ['top', 1, 0],
      ['top', 1, 3],
      ['quit'],
    ])
    const [whole = '', none = '', three = ''] = results
      .slice(0, 3)
      .map((r) => octetsOf(r).toString())
    expect(none.endsWith('\r\n\r\n')).toBe(true)
    expect(whole.startsWith(none)).toBe(true)
    expect(three).toBe(`${none} \r\n\t\r\n  trailing  \r\n`)
  })

  it('logs in by APOP, and not by APOP with the password', async () => {
    const address = await server.addUser('poplib-apop')
    const { greeting, results } = await session(address, [['stat'], ['quit']], {
      apop: APOP_SECRET,
    })
    expect(greeting).toMatch(new RegExp(`^\\+OK .*<[^<>@ ]+@${HOSTNAME}>`))
    expect(results[0]).toEqual([0, 0])
    const refused = await session(address, [['stat']], { apop: PASSWORD })
    expect(refused.error).toMatch(/^-ERR \[AUTH\]/)
  })

  it('gets one answer for a wrong password and an unknown user', async () => {
    const address = await server.addUser('poplib-wrong')
    const wrong = await session(address, [['stat']], { password: 'wrong' })
    const unknown = await session('nobody@interop.test', [['stat']], { password: 'wrong' })
    expect(wrong.error).toMatch(/^-ERR \[AUTH\]/)
    expect(unknown.error).toBe(wrong.error)
    expect(unknown.results).toEqual([])
  })

  it('is told IN-USE while another session lasts, and comes in after a drop', async () => {
    const address = await server.addUser('poplib-in-use')
    const holder = await Holder.open(server.pop3Port, address)
    expect((await session(address, [['stat']])).error).toMatch(/^-ERR \[IN-USE\]/)
    holder.drop()
    // The server hears of the drop from the kernel: soon, but not at a moment we could wait on.
    await expect
      .poll(async () => (await session(address, [['stat'], ['quit']])).error, { timeout: 10_000 })
      .toBeUndefined()
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\r\n',
    isSilent: true,
    cannot: {
      PLAIN: 'poplib has no SASL',
      LOGIN: 'poplib has no SASL',
      'SCRAM-SHA-256': 'poplib has no SASL',
      'SCRAM-SHA-256-PLUS': 'poplib has no SASL',
    },
  })
})

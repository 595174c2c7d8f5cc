/** mpop: sends many commands at once (RFC 2449 §6.6), and remembers unique-ids. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, describeClients, Maildir, makeHome, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

interface Account extends Partial<Errand> {
  address: string
  isKept?: boolean
}

/** An mpop with its own configuration, list of unique-ids, and Maildir. */
class Mpop {
  readonly #config: string
  readonly #maildir: Maildir

  constructor(server: InteropServer, account: Account) {
    const { address, password = PASSWORD, isKept = false } = account
    const { port = server.pop3Port, transport = 'plain', mechanism = 'USER', caFile } = account
    const home = makeHome(server, 'mpop')
    this.#config = join(home, 'config')
    this.#maildir = new Maildir(home)
    const lines = [
      'account default',
      `host ${HOST_NAME}`,
      `port ${port}`,
      `tls ${transport === 'plain' ? 'off' : 'on'}`,
      `tls_starttls ${transport === 'STLS' ? 'on' : 'off'}`,
      `tls_trust_file ${caFile ?? ''}`,
      'timeout 30',
      'pipelining on',
      `auth ${mechanism.toLowerCase()}`,
      `user ${address}`,
      `password ${password}`,
      `keep ${isKept ? 'on' : 'off'}`,
      `uidls_file ${join(home, 'uidls')}`,
      'received_header off',
      `delivery maildir ${this.#maildir.path}`,
    ]
    writeFileSync(this.#config, `${lines.join('\n')}\n`, { mode: 0o600 })
  }

  run(...options: string[]): Promise<ClientResult> {
    return runClient('mpop', ['--file', this.#config, ...options])
  }

  /** What it has fetched so far, lines ended by LF. */
  copies(): Buffer[] {
    return this.#maildir.copies()
  }

  names(): string[] {
    return this.copies().map(nameOf).sort()
  }
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const mpop = new Mpop(errand.server, errand)
  const { status, stdout, stderr } = await mpop.run('--debug')
  return { end: endOf(status, stderr), transcript: stdout + stderr, copies: mpop.copies() }
}

function endOf(status: number, told: string): Outcome['end'] {
  if (status === 0) return 'fetched'
  if (told.includes('authentication failed')) return 'wrong password'
  return told.includes('certificate verification failed') ? 'untrusted' : 'something else'
}

describeClients('mpop', ['mpop', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: true })
  })

  afterAll(async () => {
    await server.stop()
  })

  it('fetches everything once, pipelined, and later only what is new', async () => {
    const address = await server.addUser('mpop-keep')
    await deliver(server, address)
    const mpop = new Mpop(server, { address, isKept: true })
    expect(await mpop.run()).toMatchObject({ status: 0, stderr: '' })
    expect(mpop.names()).toEqual([...MESSAGES.keys()].sort())
    for (const copy of mpop.copies()) expectDelivered(copy, address, nameOf(copy), '\n')
    expect((await mpop.run()).status).toBe(0)
    expect(mpop.copies()).toHaveLength(MESSAGES.size)
    await deliver(server, address, ['dots'])
    expect((await mpop.run()).status).toBe(0)
    expect(mpop.copies()).toHaveLength(MESSAGES.size + 1)
  })

  it('deletes more than it has in flight, and leaves the maildrop empty', async () => {
    const address = await server.addUser('mpop-dele')
    await deliver(server, address)
    const mpop = new Mpop(server, { address })
    expect((await mpop.run()).status).toBe(0)
    expect(mpop.copies()).toHaveLength(MESSAGES.size)
    const second = new Mpop(server, { address })
    expect((await second.run()).status).toBe(0)
    expect(second.copies()).toEqual([])
  })

  it('shows why it was not let in', async () => {
    const address = await server.addUser('mpop-busy')
    const wrong = await new Mpop(server, { address, password: 'wrong' }).run()
    expect(wrong.status).not.toBe(0)
    expect(wrong.stderr).toContain('[AUTH]')
    const holder = await Holder.open(server.pop3Port, address)
    const busy = await new Mpop(server, { address }).run()
    expect(busy.status).not.toBe(0)
    expect(busy.stderr).toContain('[IN-USE]')
    await holder.quit()
    expect((await new Mpop(server, { address }).run()).status).toBe(0)
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\n',
    cannot: { 'SCRAM-SHA-256-PLUS': 'mpop does not have it' },
  })
})

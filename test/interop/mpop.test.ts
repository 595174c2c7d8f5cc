/** mpop: sends many commands at once (RFC 2449 §6.6), and remembers unique-ids. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, describeClients, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { APOP_SECRET, HOST, type InteropServer, PASSWORD, startServer } from './server.ts'

interface Account {
  address: string
  auth?: 'user' | 'apop'
  password?: string
  isKept?: boolean
}

/** An mpop with its own configuration, list of unique-ids, and Maildir. */
class Mpop {
  readonly #config: string
  readonly #maildir: string

  constructor(server: InteropServer, account: Account) {
    const { address, auth = 'user', password = PASSWORD, isKept = false } = account
    const home = join(server.directory, `mpop-${process.hrtime.bigint()}`)
    this.#config = join(home, 'config')
    this.#maildir = join(home, 'Maildir')
    for (const name of ['cur', 'new', 'tmp'])
      mkdirSync(join(this.#maildir, name), { recursive: true })
    const lines = [
      'account default',
      `host ${HOST}`,
      `port ${server.pop3Port}`,
      'tls off',
      'timeout 30',
      'pipelining on',
      `auth ${auth}`,
      `user ${address}`,
      `password ${password}`,
      `keep ${isKept ? 'on' : 'off'}`,
      `uidls_file ${join(home, 'uidls')}`,
      'received_header off',
      `delivery maildir ${this.#maildir}`,
    ]
    writeFileSync(this.#config, `${lines.join('\n')}\n`, { mode: 0o600 })
  }

  run(): Promise<ClientResult> {
    return runClient('mpop', ['--file', this.#config])
  }

  /** What it has fetched so far, lines ended by LF. */
  copies(): Buffer[] {
    const directory = join(this.#maildir, 'new')
    return readdirSync(directory).map((name) => readFileSync(join(directory, name)))
  }

  names(): string[] {
    return this.copies().map(nameOf).sort()
  }
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

  it('logs in by APOP', async () => {
    const address = await server.addUser('mpop-apop')
    await deliver(server, address, ['plain'])
    const refused = new Mpop(server, { address, auth: 'apop', password: 'wrong' })
    expect((await refused.run()).status).not.toBe(0)
    const mpop = new Mpop(server, { address, auth: 'apop', password: APOP_SECRET })
    expect((await mpop.run()).status).toBe(0)
    expect(mpop.names()).toEqual(['plain'])
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
})

/**
 * fetchmail: keeps a list of the unique-ids it has seen; deletes what it handed over; knows a busy
 * maildrop from a wrong password by the response code.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, describeClients, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { APOP_SECRET, HOST, type InteropServer, PASSWORD, startServer } from './server.ts'

/** fetchmail's exit statuses. */
const FETCHED = 0
const NO_MAIL = 1
const AUTHENTICATION_FAILED = 3
const LOCK_BUSY = 9

// CLIENT: fetchmail 6.4 takes the stuffing off body lines, not off header fields.
const NAMES = [...MESSAGES.keys()].filter((name) => name !== 'dot-field')

interface Account {
  address: string
  protocol?: 'pop3' | 'apop'
  password?: string
  isKept?: boolean
}

/** A fetchmail with its own home: configuration, list of unique-ids, and what it fetched. */
class Fetchmail {
  readonly #home: string
  readonly #maildir: string

  constructor(server: InteropServer, account: Account) {
    const { address, protocol = 'pop3', password = PASSWORD, isKept = false } = account
    this.#home = join(server.directory, `fetchmail-${process.hrtime.bigint()}`)
    this.#maildir = join(this.#home, 'mail')
    mkdirSync(this.#maildir, { recursive: true })
    const lines = [
      'set invisible',
      `set idfile "${join(this.#home, 'ids')}"`,
      `set pidfile "${join(this.#home, 'pid')}"`,
      `poll ${HOST} service ${server.pop3Port} protocol ${protocol} timeout 30 uidl no dns`,
      // fetchmail 6.4 insists on STLS unless it is told that there is none.
      `  auth password user "${address}" password "${password}" sslproto ""`,
      `  ${isKept ? 'keep no fetchall' : 'no keep fetchall'} no rewrite no stripcr no mimedecode`,
      `  mda "cat > '${this.#maildir}'/$(date +%s%N)"`,
    ]
    writeFileSync(join(this.#home, 'rc'), `${lines.join('\n')}\n`, { mode: 0o600 })
  }

  run(): Promise<ClientResult> {
    const env = { HOME: this.#home, FETCHMAILHOME: this.#home }
    return runClient('fetchmail', ['--fetchmailrc', join(this.#home, 'rc')], { env })
  }

  /** What it has fetched so far, in order. */
  copies(): Buffer[] {
    const names = readdirSync(this.#maildir).sort()
    return names.map((name) => readFileSync(join(this.#maildir, name)))
  }
}

describeClients('fetchmail', ['fetchmail', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: true })
  })

  afterAll(async () => {
    await server.stop()
  })

  it('fetches everything once with --keep, and later only what is new', async () => {
    const address = await server.addUser('fetchmail-keep')
    await deliver(server, address, NAMES)
    const fetchmail = new Fetchmail(server, { address, isKept: true })
    const first = await fetchmail.run()
    expect(first.stderr).not.toContain('error')
    expect(first.status).toBe(FETCHED)
    expect(fetchmail.copies().map(nameOf)).toEqual(NAMES)
    for (const copy of fetchmail.copies()) expectDelivered(copy, address, nameOf(copy))
    expect((await fetchmail.run()).status).toBe(NO_MAIL)
    expect(fetchmail.copies()).toHaveLength(NAMES.length)
    await deliver(server, address, ['plain'])
    expect((await fetchmail.run()).status).toBe(FETCHED)
    expect(fetchmail.copies()).toHaveLength(NAMES.length + 1)
  })

  it('without --keep leaves the maildrop empty', async () => {
    const address = await server.addUser('fetchmail-dele')
    await deliver(server, address, ['dots', 'plain'])
    const fetchmail = new Fetchmail(server, { address })
    expect((await fetchmail.run()).status).toBe(FETCHED)
    expect(fetchmail.copies().map(nameOf)).toEqual(['dots', 'plain'])
    const second = new Fetchmail(server, { address })
    expect((await second.run()).status).toBe(NO_MAIL)
    expect(second.copies()).toEqual([])
  })

  it('logs in by APOP', async () => {
    const address = await server.addUser('fetchmail-apop')
    await deliver(server, address, ['plain'])
    const options = { address, protocol: 'apop' } as const
    const refused = new Fetchmail(server, { ...options, password: 'wrong' })
    expect((await refused.run()).status).toBe(AUTHENTICATION_FAILED)
    const fetchmail = new Fetchmail(server, { ...options, password: APOP_SECRET })
    expect((await fetchmail.run()).status).toBe(FETCHED)
    expect(fetchmail.copies().map(nameOf)).toEqual(['plain'])
  })

  it('tells a wrong password from a busy maildrop', async () => {
    const address = await server.addUser('fetchmail-busy')
    await deliver(server, address, ['plain'])
    const wrong = new Fetchmail(server, { address, password: 'wrong' })
    expect((await wrong.run()).status).toBe(AUTHENTICATION_FAILED)
    const holder = await Holder.open(server.pop3Port, address)
    const fetchmail = new Fetchmail(server, { address })
    expect((await fetchmail.run()).status).toBe(LOCK_BUSY)
    expect(fetchmail.copies()).toEqual([])
    await holder.quit()
    expect((await fetchmail.run()).status).toBe(FETCHED)
    expect(fetchmail.copies().map(nameOf)).toEqual(['plain'])
  })
})

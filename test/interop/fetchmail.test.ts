/**
 * fetchmail: keeps a list of the unique-ids it has seen; deletes what it handed over; knows a busy
 * maildrop from a wrong password by the response code.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, CopyFolder, describeClients, makeHome, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

/** fetchmail's exit statuses. */
const FETCHED = 0
const NO_MAIL = 1
const AUTHENTICATION_FAILED = 3
const LOCK_BUSY = 9

// CLIENT: fetchmail 6.4 takes the stuffing off body lines, not off header fields.
const NAMES = [...MESSAGES.keys()].filter((name) => name !== 'dot-field')

interface Account extends Partial<Errand> {
  address: string
  isKept?: boolean
}

// CLIENT: fetchmail 6.4 insists on STLS unless it is told that there is none.
const TLS = { plain: 'sslproto ""', STLS: 'sslproto "auto"', POP3S: 'ssl' }

/** A fetchmail with its own home: configuration, list of unique-ids, and what it fetched. */
class Fetchmail {
  readonly #home: string
  readonly #folder: CopyFolder

  constructor(server: InteropServer, account: Account) {
    const { address, password = PASSWORD, isKept = false } = account
    const { port = server.pop3Port, transport = 'plain', mechanism, caFile = '' } = account
    const protocol = mechanism === 'APOP' ? 'apop' : 'pop3'
    this.#home = makeHome(server, 'fetchmail')
    this.#folder = new CopyFolder(this.#home)
    const lines = [
      'set invisible',
      `set idfile "${join(this.#home, 'ids')}"`,
      `set pidfile "${join(this.#home, 'pid')}"`,
      `poll ${HOST_NAME} service ${port} protocol ${protocol} timeout 30 uidl no dns`,
      `  auth password user "${address}" password "${password}" ${TLS[transport]}`,
      `  sslcertck sslcertfile "${caFile}"`,
      `  ${isKept ? 'keep no fetchall' : 'no keep fetchall'} no rewrite no stripcr no mimedecode`,
      `  mda "${this.#folder.command}"`,
    ]
    writeFileSync(join(this.#home, 'rc'), `${lines.join('\n')}\n`, { mode: 0o600 })
  }

  run(...options: string[]): Promise<ClientResult> {
    const env = { HOME: this.#home, FETCHMAILHOME: this.#home }
    return runClient('fetchmail', ['--fetchmailrc', join(this.#home, 'rc'), ...options], { env })
  }

  /** What it has fetched so far, in order. */
  copies(): Buffer[] {
    return this.#folder.copies()
  }
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const fetchmail = new Fetchmail(errand.server, errand)
  const { status, stdout, stderr } = await fetchmail.run('-v')
  return { end: endOf(status, stderr), transcript: stdout + stderr, copies: fetchmail.copies() }
}

function endOf(status: number, told: string): Outcome['end'] {
  if (status === FETCHED) return 'fetched'
  if (status === AUTHENTICATION_FAILED) return 'wrong password'
  return told.includes('certificate verify failed') ? 'untrusted' : 'something else'
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

  testWaysIn({
    run: runErrand,
    lineEnd: '\r\n',
    names: NAMES,
    cannot: {
      'STLS APOP': 'fetchmail ignores sslproto with "protocol apop"',
      PLAIN: 'fetchmail does not have it for POP3',
      LOGIN: 'fetchmail does not have it for POP3',
      'SCRAM-SHA-256': 'fetchmail does not have it',
      'SCRAM-SHA-256-PLUS': 'fetchmail does not have it',
    },
  })
})

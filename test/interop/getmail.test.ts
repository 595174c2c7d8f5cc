/** getmail6: trusts UIDL alone to know what it has fetched; stops if two ids are the same. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ClientResult, CopyFolder, describeClients, makeHome, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, expectDelivered, MESSAGES, nameOf } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

interface Account extends Partial<Errand> {
  address: string
  isKept?: boolean
}

/**
 * getmail waits for ever for a delivery that ends before getmail waits for it. So the delivery does not
 * end before getmail has its handler for that and sleeps.
 */
const UNTIL_AWAITED =
  'until grep -q "^State:.S" /proc/$PPID/status && ' +
  'grep -q "^SigCgt:.*[13579bdf]....$" /proc/$PPID/status; do :; done'

/** A getmail with its own directory: configuration, list of unique-ids, and copies. */
class Getmail {
  readonly #home: string
  readonly #folder: CopyFolder

  constructor(server: InteropServer, account: Account) {
    const { address, password = PASSWORD, isKept = false } = account
    const { port = server.pop3Port, transport = 'plain', mechanism, caFile } = account
    this.#home = makeHome(server, 'getmail')
    this.#folder = new CopyFolder(this.#home)
    const isTls = transport !== 'plain'
    const lines = [
      '[retriever]',
      `type = SimplePOP3${isTls ? 'SSL' : ''}Retriever`,
      `server = ${HOST_NAME}`,
      `port = ${port}`,
      `username = ${address}`,
      `password = ${password}`,
      `use_apop = ${mechanism === 'APOP'}`,
      ...(isTls ? [`ca_certs = ${caFile}`] : []),
      '[destination]',
      'type = MDA_external',
      'path = /bin/sh',
      `arguments = ('-c', '${this.#folder.command}; ${UNTIL_AWAITED}')`,
      'unixfrom = false',
      'allow_root_commands = true',
      '[options]',
      'read_all = false',
      `delete = ${!isKept}`,
      'delivered_to = false',
      'received = false',
    ]
    writeFileSync(join(this.#home, 'getmailrc'), `${lines.join('\n')}\n`, { mode: 0o600 })
  }

  run(): Promise<ClientResult> {
    return runClient('getmail', ['--getmaildir', this.#home], { env: { HOME: this.#home } })
  }

  copies(): Buffer[] {
    return this.#folder.copies()
  }
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const getmail = new Getmail(errand.server, errand)
  const { status, stdout, stderr } = await getmail.run()
  const transcript = stdout + stderr
  return { end: endOf(status, transcript), transcript, copies: getmail.copies() }
}

function endOf(status: number, told: string): Outcome['end'] {
  if (told.includes('CERTIFICATE_VERIFY_FAILED')) return 'untrusted'
  if (told.includes('[AUTH]')) return 'wrong password'
  return status === 0 ? 'fetched' : 'something else'
}

describeClients('getmail', ['getmail', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  it('fetches everything once, and later only what is new', async () => {
    const address = await server.addUser('getmail-keep')
    await deliver(server, address)
    const getmail = new Getmail(server, { address, isKept: true })
    expect(await getmail.run()).toMatchObject({ status: 0, stderr: '' })
    expect(getmail.copies().map(nameOf).sort()).toEqual([...MESSAGES.keys()].sort())
    for (const copy of getmail.copies()) expectDelivered(copy, address, nameOf(copy), '\n')
    expect((await getmail.run()).status).toBe(0)
    expect(getmail.copies()).toHaveLength(MESSAGES.size)
    await deliver(server, address, ['plain'])
    expect((await getmail.run()).status).toBe(0)
    expect(getmail.copies()).toHaveLength(MESSAGES.size + 1)
  })

  it('shows that the maildrop is in use, and comes again', async () => {
    const address = await server.addUser('getmail-busy')
    await deliver(server, address, ['dots'])
    const getmail = new Getmail(server, { address })
    const holder = await Holder.open(server.pop3Port, address)
    const busy = await getmail.run()
    expect(busy.stdout + busy.stderr).toContain('[IN-USE]')
    await holder.quit()
    expect((await getmail.run()).status).toBe(0)
    expect(getmail.copies().map(nameOf)).toEqual(['dots'])
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\n',
    isSilent: true,
    cannot: {
      STLS: 'getmail has no STLS for POP3',
      PLAIN: 'getmail has no SASL for POP3',
      LOGIN: 'getmail has no SASL for POP3',
      'SCRAM-SHA-256': 'getmail has no SASL for POP3',
      'SCRAM-SHA-256-PLUS': 'getmail has no SASL for POP3',
    },
  })
})

/**
 * neomutt, which needs a terminal: script(1) gives it one, and the keys come from its own
 * configuration. `fetch-mail` copies everything into a Maildir; a folder `pop://…` is read message
 * by message, and needs UIDL and TOP in CAPA.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeClients, Maildir, makeHome, runClient } from './clients.ts'
import { Holder } from './holder.ts'
import { deliver, MESSAGES, nameOf } from './messages.ts'
import { HOST_NAME, type InteropServer, PASSWORD, startServer } from './server.ts'
import { type Errand, type Outcome, testWaysIn } from './ways-in.ts'

interface Account extends Partial<Errand> {
  address: string
}

/** A neomutt with its own home and a Maildir for what it fetches. */
class Neomutt {
  readonly #home: string
  readonly #maildir: Maildir
  readonly #url: string
  readonly #settings: string[]

  constructor(server: InteropServer, account: Account) {
    const { address, password = PASSWORD, transport = 'plain', mechanism = 'USER' } = account
    const { port = server.pop3Port, caFile = '' } = account
    this.#home = makeHome(server, 'neomutt')
    this.#maildir = new Maildir(this.#home)
    this.#url = `${transport === 'POP3S' ? 'pops' : 'pop'}://${HOST_NAME}:${port}`
    this.#settings = [
      'set mbox_type=Maildir move=no quit=yes delete=yes confirmappend=no wait_key=no',
      `set spool_file="${this.#maildir.path}" folder="${this.#maildir.path}"`,
      `set pop_host="${this.#url}" pop_user="${address}" pop_pass="${password}" pop_delete=yes`,
      // gsasl cannot be told which mechanism to use, only that it is not wanted.
      `set pop_authenticators="${mechanism.startsWith('SCRAM') ? '' : mechanism.toLowerCase()}"`,
      `set ssl_force_tls=${transport === 'STLS' ? 'yes' : 'no'}`,
      `set ssl_starttls=${transport === 'STLS' ? 'yes' : 'no'}`,
      `set ssl_ca_certificates_file="${caFile}" certificate_file="${join(this.#home, 'trusted')}"`,
    ]
  }

  /**
   * @param keys in its own notation
   * @param typed at the terminal: the answer to a question that takes no other
   * @returns what it logged of the dialogue, and what was on the screen
   */
  async run(keys: string, typed = '', ...args: string[]): Promise<string> {
    const [config, log] = [join(this.#home, 'rc'), join(this.#home, 'log')]
    const lines = [...this.#settings, `push '${keys}'`]
    writeFileSync(config, `${lines.join('\n')}\n`, { mode: 0o600 })
    const command = `neomutt -n -F ${config} -d 5 -l ${log} ${args.join(' ')}`
    const env = { HOME: this.#home, TERM: 'xterm' }
    const { stdout } = await runClient('script', ['-qec', command, '/dev/null'], {
      env,
      input: typed,
    })
    // neomutt counts its log files.
    return readFileSync(`${log}0`, 'latin1') + stdout.toString('latin1')
  }

  /** Opens the maildrop as a folder, copies all messages and leaves them there. */
  copyFolder(): Promise<string> {
    const copyAll = '<tag-pattern>~A<enter><tag-prefix><copy-message><kill-line>'
    return this.run(`${copyAll}${this.#maildir.path}<enter><quit>`, '', '-f', this.#url)
  }

  copies(): Buffer[] {
    return this.#maildir.copies()
  }
}

async function runErrand(errand: Errand): Promise<Outcome> {
  const neomutt = new Neomutt(errand.server, errand)
  // It asks whether to take a certificate that it cannot verify: "r" rejects it.
  const isAsking = errand.caFile !== errand.server.caFile
  const transcript = await neomutt.run('<fetch-mail><quit>', isAsking ? 'r' : '')
  return { end: endOf(transcript), transcript, copies: neomutt.copies() }
}

function endOf(told: string): Outcome['end'] {
  if (/Login failed|authentication failed/.test(told)) return 'wrong password'
  if (told.includes('Certificate check')) return 'untrusted'
  return 'fetched'
}

describeClients('neomutt', ['neomutt', 'script', 'swaks'], () => {
  let server: InteropServer

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
  })

  afterAll(async () => {
    await server.stop()
  })

  // With USER named, and a mechanism offered that would take neomutt off its way: see below.
  it('reads the maildrop as a folder, by UIDL and TOP', async () => {
    const address = await server.addUser('neomutt-folder')
    await deliver(server, address)
    const account = { address, transport: 'POP3S', port: server.pop3sPort } as const
    const neomutt = new Neomutt(server, { ...account, caFile: server.caFile })
    const transcript = await neomutt.copyFolder()
    expect(transcript).toMatch(/> UIDL/)
    expect(transcript).toMatch(/> TOP 1 0/)
    // CLIENT: neomutt writes some of the header anew when it copies.
    expect(neomutt.copies().map(nameOf).sort()).toEqual([...MESSAGES.keys()].sort())
  })

  it('shows that the maildrop is in use', async () => {
    const address = await server.addUser('neomutt-busy')
    const holder = await Holder.open(server.pop3Port, address)
    expect(await new Neomutt(server, { address }).run('<fetch-mail><quit>')).toContain('[IN-USE]')
    await holder.quit()
  })

  testWaysIn({
    run: runErrand,
    lineEnd: '\n',
    cannot: {
      PLAIN: 'neomutt with gsasl takes the strongest that is offered',
      LOGIN: 'neomutt with gsasl takes the strongest that is offered',
      'STLS SCRAM-SHA-256': 'neomutt tries -PLUS, fails, and loses its place',
      'POP3S SCRAM-SHA-256': 'neomutt tries -PLUS, fails, and loses its place',
      'SCRAM-SHA-256-PLUS': 'neomutt has no channel binding',
    },
  })
})

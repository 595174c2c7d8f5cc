/**
 * A Dovecot of the test's own, from Debian's packages, as the server that users move away from:
 * Maildirs filled with the corpus, its usual UIDLs, a passwd-file. Root is needed, since its
 * processes change users.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatConfiguration, MAIL_OWNER } from '../../bench/servers/dovecot-configuration.ts'
import { freePorts, waitForGreeting } from '../../bench/servers/ports.ts'
import { TestAuthority } from '../support/certificates.ts'

const CORPUS = join(import.meta.dirname, '../corpus')

export interface DovecotUser {
  name: string
  password: string
  messages: Buffer[]
}

export interface Dovecot {
  pop3Port: number
  pop3sPort: number
  /** PEM: who vouches for it. */
  caFile: string
  stop(): Promise<void>
}

/**
 * No message for Dovecot; and one whose first octet is a dot, which Dovecot 2.3 does not stuff: its
 * clients lose it, and what moved here has it.
 */
const UNFIT = new Set(['empty.eml', 'dot-first.eml'])

/** The corpus but for what is no message for Dovecot. */
export function corpus(): Buffer[] {
  const names = readdirSync(CORPUS).filter((name) => name.endsWith('.eml') && !UNFIT.has(name))
  return names.sort().map((name) => readFileSync(join(CORPUS, name)))
}

/** @param place a directory for all its files */
export async function startDovecot(place: string, users: DovecotUser[]): Promise<Dovecot> {
  const own = join(place, 'dovecot')
  const mail = join(own, 'mail')
  mkdirSync(mail, { recursive: true })
  for (const directory of [place, own, mail]) chmodSync(directory, 0o755)
  for (const user of users) fillMaildir(join(mail, user.name, 'Maildir'), user.messages)
  execFileSync('chown', ['-R', `${MAIL_OWNER}:${MAIL_OWNER}`, mail])
  const passwords = users.map(({ name, password }) => `${name}:{PLAIN}${password}\n`)
  writeFileSync(join(own, 'passwords'), passwords.join(''))
  const authority = await TestAuthority.create('Authority of the old server')
  const { cert, key } = await authority.issue(['localhost'])
  const file = (name: string, pem: string): string => {
    writeFileSync(join(own, name), pem)
    return join(own, name)
  }
  const certificate = { certFile: file('cert.pem', cert), keyFile: file('key.pem', key), cert }
  const [pop3 = 0, pop3s = 0, lmtp = 0] = await freePorts(3)
  const variant = { scheme: 'sha512', isCached: false } as const
  const text = formatConfiguration(own, mail, certificate, variant, { pop3, pop3s, lmtp })
  const log = openSync(join(own, 'start.log'), 'a')
  const child = spawn('dovecot', ['-F', '-c', file('dovecot.conf', text)], {
    stdio: ['ignore', log, log],
  })
  await waitForGreeting(pop3)
  return {
    pop3Port: pop3,
    pop3sPort: pop3s,
    caFile: file('ca.pem', authority.cert),
    stop: async () => {
      const end = once(child, 'exit')
      if (child.exitCode === null && child.kill('SIGTERM')) await end
    },
  }
}

function fillMaildir(path: string, messages: readonly Buffer[]): void {
  for (const name of ['cur', 'new', 'tmp']) mkdirSync(join(path, name), { recursive: true })
  for (const [at, octets] of messages.entries()) {
    const name = `17040900${String(at).padStart(2, '0')}.M${at}P1.old,S=${octets.length}:2,`
    writeFileSync(join(path, 'cur', name), octets)
  }
}

/**
 * Dovecot from Debian's packages (dovecot-pop3d, dovecot-lmtpd) as instances of the bench's own:
 * own configuration, sockets, ports and mail below the bench's place. Root is needed, since its
 * processes change users. Variants share one copy of the mail.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import argon2 from 'argon2'
import { accountsOf, PASSWORD, type Seed } from '../load/content.ts'
import { ProcessGroup } from '../measure/processes.ts'
import { makeCertificate } from './certificate.ts'
import {
  type DovecotScheme,
  type DovecotVariant,
  formatConfiguration,
  MAIL_OWNER,
} from './dovecot-configuration.ts'
import { letOthersThrough, MailCopy } from './mail-copy.ts'
import { writeMaildir } from './maildir.ts'
import { pollEach } from './poll-each.ts'
import { freePorts, waitForGreeting } from './ports.ts'
import type { BenchServer, Endpoint } from './server.ts'

/** Those the bench compares: as fast as can be, and as safe at rest as Popgres. */
export const DOVECOT_VARIANTS: readonly DovecotVariant[] = [
  { scheme: 'sha512', isCached: true },
  { scheme: 'sha512', isCached: false },
  { scheme: 'argon2id', isCached: true },
  { scheme: 'argon2id', isCached: false },
]

/** As Popgres hashes. */
const ARGON2 = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 }

async function hashPassword(scheme: DovecotScheme): Promise<string> {
  if (scheme === 'argon2id') return `{ARGON2ID}${await argon2.hash(PASSWORD, ARGON2)}`
  const args = ['pw', '-s', 'SSHA512', '-p', PASSWORD]
  return execFileSync('doveadm', args, { encoding: 'utf8' }).trim()
}

interface Running {
  group: ProcessGroup
  pop3: Endpoint
  pop3s: Endpoint
  lmtp: Endpoint
  stop(): Promise<void>
}

const endpointAt = (port: number | undefined, tls = false): Endpoint => {
  if (port === undefined) throw new Error('no port')
  return { host: '127.0.0.1', port, tls }
}

export const nameOfDovecot = ({ scheme, isCached }: DovecotVariant): string =>
  `dovecot ${scheme}${isCached ? ' cache' : ''}`

async function run(place: string, seed: Seed, mail: string, variant: DovecotVariant) {
  const name = nameOfDovecot(variant)
  const own = join(place, 'dovecot', name.replaceAll(' ', '-'))
  // Readable: its processes are of several users.
  mkdirSync(own, { recursive: true, mode: 0o755 })
  const hash = await hashPassword(variant.scheme)
  const lines = [...accountsOf(seed)].map(({ address }) => `${address}:${hash}\n`)
  writeFileSync(join(own, 'passwords'), lines.join(''))
  const [pop3 = 0, pop3s = 0, lmtp = 0] = await freePorts(3)
  const configuration = join(own, 'dovecot.conf')
  const certificate = await makeCertificate(place)
  const ports = { pop3, pop3s, lmtp }
  writeFileSync(configuration, formatConfiguration(own, mail, certificate, variant, ports))

  const group = new ProcessGroup(name)
  const log = openSync(join(own, 'start.log'), 'a')
  const child = group.spawn('dovecot', ['-F', '-c', configuration], {
    stdio: ['ignore', log, log],
  })
  await waitForGreeting(pop3)
  const running: Running = {
    group,
    pop3: endpointAt(pop3),
    pop3s: endpointAt(pop3s, true),
    lmtp: endpointAt(lmtp),
    stop: async () => {
      const end = new Promise((resolve) => child.once('exit', resolve))
      if (child.exitCode === null && child.kill('SIGTERM')) await end
      await group.close()
    },
  }
  return running
}

/** Writes the mail and polls it once, so that no index is left to make. */
async function seedMail(place: string, seed: Seed, mail: string, variant: DovecotVariant) {
  const accounts = [...accountsOf(seed)]
  for (const account of accounts)
    writeMaildir(join(mail, account.address, 'Maildir'), account, { hasCrlf: true })
  execFileSync('chown', ['-R', `${MAIL_OWNER}:${MAIL_OWNER}`, mail])
  const running = await run(place, seed, mail, { ...variant, scheme: 'sha512', isCached: true })
  await pollEach(
    running.pop3.port,
    accounts.map(({ address }) => address),
  )
  await running.stop()
}

/** @param place of the bench: variants share mail and certificate */
export async function startDovecot(
  place: string,
  seed: Seed,
  variant: DovecotVariant,
): Promise<BenchServer> {
  const mail = join(place, 'dovecot', 'mail')
  letOthersThrough(place)
  if (!existsSync(mail)) {
    mkdirSync(mail, { recursive: true, mode: 0o755 })
    await seedMail(place, seed, mail, variant)
  }
  const copy = new MailCopy(mail)
  const { group, ...running } = await run(place, seed, mail, variant)
  return {
    ...running,
    name: nameOfDovecot(variant),
    cannot: new Map(),
    cachesLogins: variant.isCached,
    pids: () => ({ server: group.pids(), database: [] }),
    reset: async (workload) => copy.restoreAfter(workload),
  }
}

/**
 * One node's POP3 side inside the test process: its own Database, lease keeper and server, as a worker
 * wires them. Two of them on one database are two nodes.
 */
import { EventEmitter, once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Log } from '../../src/base/log.ts'
import { Networks } from '../../src/base/network.ts'
import { Secret } from '../../src/base/secret.ts'
import { Authenticator, type AuthenticatorOptions } from '../../src/mail/auth/authenticator.ts'
import { LeaseKeeper } from '../../src/mail/maildrop/lease-keeper.ts'
import { ReadAheadBudget } from '../../src/mail/maildrop/reader.ts'
import { FirstLogins, type FirstLoginsOptions } from '../../src/mail/moving/first-logins.ts'
import { SASL_MECHANISMS } from '../../src/protocol/pop3/actions.ts'
import type { ConnectionLimits } from '../../src/server/connection-limits.ts'
import { type Pop3ServerOptions, startPop3Server } from '../../src/server/pop3-server.ts'
import { TlsDoor, type TlsDoorOptions } from '../../src/server/tls/door.ts'
import { type Database, openDatabase } from '../../src/storage/postgres/database.ts'
import type { TestCertificate } from './certificates.ts'
import { TEST_KEYRING } from './postgres.ts'
import { servingUrl } from './postgres-setup.ts'

export interface TestNode {
  /** `host:port` of its POP3 listener. */
  address: string
  /** Of its POP3S listener; empty: it has no certificate. */
  tlsAddress: string
  db: Database
  keeper: LeaseKeeper
  budget: ReadAheadBudget
  moving: FirstLogins
  door: TlsDoor | undefined
  /** Every line that was logged. */
  logged: string[]
  /** Resolves when a line with this text in it is there. */
  untilLogged(text: string): Promise<string>
  stop(graceMs?: number): Promise<void>
}

/** What a POP3 server does when nothing else is wanted of it: no TLS, no balancer, no hurry. */
export const POP3_DEFAULTS = {
  addresses: [{ host: '127.0.0.1', port: 0 }],
  tlsAddresses: [],
  proxyNetworks: new Networks(),
  limits: { connections: 1_000, connectionsPerNetwork: 1_000, sessionsPerDomain: 1_000 },
  door: undefined,
  plaintextAuth: 'loopback',
  autologoutMs: 600_000,
  saslMechanisms: SASL_MECHANISMS,
  isUtf8Asked: false,
  isApopOffered: () => false,
  isScramOffered: () => false,
  hasBearerProvider: () => false,
  policy: () => ({
    policy: { loginDelaySeconds: 0, expireDays: undefined },
    isPolicyByUser: false,
  }),
} satisfies Partial<Pop3ServerOptions>

/** Settings of the server that a test may want otherwise. */
type ServerChanges = Partial<
  Pick<
    Pop3ServerOptions,
    | 'plaintextAuth'
    | 'autologoutMs'
    | 'isUtf8Asked'
    | 'saslMechanisms'
    | 'policy'
    | 'keepAliveMs'
    | 'pace'
  >
>

export interface TestNodeOptions extends ServerChanges {
  url: string
  hostname?: string
  /** Where it listens; 127.0.0.1 if left out. */
  host?: string
  defaultDomain?: string
  isApopOffered?: boolean
  isScramOffered?: boolean
  hasBearerProvider?: boolean
  /** With a certificate it speaks TLS, by STLS and on a listener for POP3S. */
  tls?: TestCertificate & Partial<TlsDoorOptions>
  /** CIDR networks of balancers. */
  balancers?: readonly string[]
  limits?: Partial<ConnectionLimits>
  authenticator?: Partial<AuthenticatorOptions>
  moving?: Pick<FirstLoginsOptions, 'patienceMs'>
}

/** The heartbeat does not run by itself: a test beats when it wants to. */
export async function startTestNode(options: TestNodeOptions): Promise<TestNode> {
  const { url, hostname = 'pop.example.test', host = '127.0.0.1', defaultDomain = '' } = options
  const logged: string[] = []
  const lines = new EventEmitter().setMaxListeners(0)
  const write = (line: string) => {
    logged.push(line)
    lines.emit('line')
  }
  const log: Log = pino(
    { level: 'debug', serializers: { error: pino.stdSerializers.err } },
    { write },
  )
  const db = openDatabase({
    url: new Secret(servingUrl(url)),
    applicationName: 'popgres test node',
    connectionsMax: 4,
    log,
  })
  const onBeat = (): Promise<void> => moving.refresh()
  const keeper = new LeaseKeeper({ db, log, hostname, version: '0.0.0', onBeat })
  const budget = new ReadAheadBudget()
  const moving = new FirstLogins({ db, log, keeper, budget, ...options.moving })
  const basis = { db, log, keyring: TEST_KEYRING }
  const more = { defaultDomain, failureDelayMs: 0, ...options.authenticator }
  const authenticator = new Authenticator({ ...basis, moving, ...more })
  const door = options.tls && (await openDoor({ ...basis, ...options.tls }))
  await keeper.beat()
  const addresses = [{ host, port: 0 }]
  const server = await startPop3Server({
    ...POP3_DEFAULTS,
    ...changesIn(options),
    ...{ db, log, keeper, budget, authenticator, door, hostname, addresses },
    tlsAddresses: door ? addresses : [],
  })
  return {
    address: server.addresses[0] ?? '',
    tlsAddress: server.tlsAddresses[0] ?? '',
    ...{ db, keeper, budget, moving, door, logged },
    untilLogged: async (text) => {
      for (;;) {
        const found = logged.find((line) => line.includes(text))
        if (found !== undefined) return found
        await once(lines, 'line')
      }
    },
    stop: async (graceMs = 1_000) => {
      door?.close()
      await server.stop(graceMs)
      await moving.stop()
      await keeper.stop()
      await db.close()
    },
  }
}

function changesIn(options: TestNodeOptions) {
  const { url, hostname, host, defaultDomain, tls, authenticator, moving, ...server } = options
  const { isApopOffered, isScramOffered, hasBearerProvider, balancers, limits, ...same } = server
  return {
    ...same,
    isApopOffered: () => isApopOffered ?? false,
    isScramOffered: () => isScramOffered ?? false,
    hasBearerProvider: () => hasBearerProvider ?? false,
    proxyNetworks: networksOf(balancers ?? []),
    limits: { ...POP3_DEFAULTS.limits, ...limits },
  }
}

type DoorOptions = Pick<TlsDoorOptions, 'db' | 'log' | 'keyring'> &
  NonNullable<TestNodeOptions['tls']>

/** A door reads its certificate from files; this one never again. */
export async function openDoor({ cert, key, ...options }: DoorOptions): Promise<TlsDoor> {
  const folder = await mkdtemp(join(tmpdir(), 'popgres-tls-'))
  const [certFile, keyFile] = [join(folder, 'cert.pem'), join(folder, 'key.pem')]
  await Promise.all([writeFile(certFile, cert), writeFile(keyFile, key)])
  const files = { certFile, keyFile, directory: undefined }
  const door = new TlsDoor({ ...files, wantsClientCertificates: false, ...options })
  await door.refresh()
  await rm(folder, { recursive: true })
  return door
}

function networksOf(texts: readonly string[]): Networks {
  const networks = new Networks()
  for (const text of texts) networks.add(text)
  return networks
}

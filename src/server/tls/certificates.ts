/**
 * Which certificate a client is shown, and which domain the host name belongs to that it asked for.
 * A name's own certificate comes before the wildcard above it, the directory before the database;
 * for every other name there is the standard one.
 *
 * What was found is believed until the next refresh() and asked for again when it is next needed; a
 * certificate is opened anew only if its files or its row have changed. One that cannot be used is
 * logged once, and the one before it stays.
 */
import { join } from 'node:path'
import type { SecureContext } from 'node:tls'
import { LRUCache } from 'lru-cache'
import type { Keyring } from '../../base/keyring.ts'
import type { Log } from '../../base/log.ts'
import { type StoredCertificate, selectTlsHost } from '../../storage/certificates.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  type KeptKeyPair,
  keep,
  readPemFiles,
  rowVersion,
  unsealRow,
  versionOf,
} from './kept-key-pair.ts'
import { coversHost, type OpenedKeyPair, openKeyPair } from './key-pair.ts'

/** What a host name stands for. */
export interface Host {
  /** In lower case; undefined: it is none of ours. */
  hostName: string | undefined
  /** The domain it is bound to. */
  domain: string | undefined
  /** undefined: the standard certificate is shown. */
  context: SecureContext | undefined
}

export interface HostCertificatesOptions {
  db: Database
  log: Log
  /** opens the keys in the database; without it those certificates are not used */
  keyring: Keyring | undefined
  certFile: string | undefined
  keyFile: string | undefined
  directory: string | undefined
  /** 48 octets; asked at each refresh */
  ticketKeys: () => Buffer
}

/** Where a certificate is from: its file, or its host name in the database. */
type Source = { file: string } | { host: string }

/**
 * LIMIT: peers choose the names they ask for, so what is kept of names and of certificates is
 * bounded. What was pushed out is only asked for again.
 */
const HOSTS_MAX = 10_000
const CERTIFICATES_MAX = 1_000
/** What a host with a certificate weighs among hosts: the certificate is held by both. */
const CERTIFICATE_WEIGHT = HOSTS_MAX / CERTIFICATES_MAX

const HOST_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/
const HOST_NAME_MAX = 253
const NOT_OURS: Host = { hostName: undefined, domain: undefined, context: undefined }

export class HostCertificates {
  readonly #options: HostCertificatesOptions
  readonly #hosts: LRUCache<string, Host>
  /** By the certificate's file, or by its host name in the database. */
  readonly #kept = new LRUCache<string, KeptKeyPair>({ max: CERTIFICATES_MAX })
  #refreshCount = 1
  #standard: KeptKeyPair | undefined
  #standardContext: SecureContext | undefined
  #ticketKeys: Buffer | undefined

  constructor(options: HostCertificatesOptions) {
    this.#options = options
    this.#hosts = new LRUCache({
      max: HOSTS_MAX,
      maxSize: HOSTS_MAX,
      sizeCalculation: ({ context }) => (context === undefined ? 1 : CERTIFICATE_WEIGHT),
      // The time that passes here is counted in refreshes, two at each: more than `ttl` is stale.
      ttl: 1,
      ttlResolution: 0,
      perf: { now: () => this.#refreshCount },
      fetchMethod: (hostName, before) =>
        this.#find(hostName).catch((error) => {
          // While the database is away, what it said last holds.
          if (before === undefined) throw error
          return before
        }),
      // Who waits for a name that is pushed out meanwhile still gets its answer.
      ignoreFetchAbort: true,
    })
  }

  /** For clients that name no host, or none of ours; undefined: TLS is not possible. */
  get standard(): SecureContext | undefined {
    return this.#standardContext
  }

  /** How much is kept. */
  get counts(): { hosts: number; certificates: number } {
    return { hosts: this.#hosts.size, certificates: this.#kept.size }
  }

  /** Looks whether the standard certificate or the ticket keys have changed. Never fails. */
  async refresh(): Promise<void> {
    this.#refreshCount += 2
    const { certFile: cert, keyFile: key } = this.#options
    if (cert === undefined || key === undefined) return
    const files = { cert, key }
    const version = (await versionOf(files)) ?? 'none'
    const before = this.#standard
    this.#standard = await keep(before, version, () => readPemFiles(files), this.#teller(cert))
    const { opened } = this.#standard
    const ticketKeys = this.#options.ticketKeys()
    const hasChanged = opened !== before?.opened
    if (opened === undefined || (!hasChanged && this.#ticketKeys?.equals(ticketKeys))) return
    // These are for all hosts: of another host's context a handshake takes only certificate and
    // key.
    this.#standardContext = openKeyPair(opened.pair, ticketKeys).context
    this.#ticketKeys = ticketKeys
    if (hasChanged) this.#logInUse(opened, { file: cert })
  }

  /**
   * @param name as the client sent it
   * @throws {Failure} if the database cannot be asked and the standard certificate is not for that
   *   name: to show it would frighten the user, a connection that breaks is tried again
   */
  async find(name: string): Promise<Host> {
    const hostName = name.toLowerCase()
    if (hostName.length > HOST_NAME_MAX || !HOST_NAME.test(hostName)) return NOT_OURS
    try {
      return (await this.#hosts.fetch(hostName)) ?? NOT_OURS
    } catch (error) {
      const context = await this.#fromDirectory(hostName)
      if (context === undefined && !this.#isStandardFor(hostName)) throw error
      return { hostName, domain: undefined, context }
    }
  }

  async #find(hostName: string): Promise<Host> {
    const [fromDirectory, { certificate, domainName: domain }] = await Promise.all([
      this.#fromDirectory(hostName),
      selectTlsHost(this.#options.db, hostName, wildcardAbove(hostName)),
    ])
    const context = fromDirectory ?? (certificate && (await this.#fromRow(certificate)))
    const isOurs = context !== undefined || domain !== undefined || this.#isStandardFor(hostName)
    return isOurs ? { hostName, domain, context } : NOT_OURS
  }

  async #fromDirectory(hostName: string): Promise<SecureContext | undefined> {
    const { directory } = this.#options
    if (directory === undefined) return undefined
    for (const name of [hostName, wildcardAbove(hostName)]) {
      const cert = join(directory, name, 'fullchain.pem')
      const files = { cert, key: join(directory, name, 'privkey.pem') }
      const version = await versionOf(files)
      if (version === undefined) {
        this.#kept.delete(cert)
        continue
      }
      const context = await this.#open({ file: cert }, version, () => readPemFiles(files))
      if (context !== undefined) return context
    }
    return undefined
  }

  #fromRow(row: StoredCertificate): Promise<SecureContext | undefined> {
    const unseal = () => unsealRow(row, this.#options.keyring)
    return this.#open({ host: row.hostName }, rowVersion(row), unseal)
  }

  async #open(
    source: Source,
    version: string,
    read: Parameters<typeof keep>[2],
  ): Promise<SecureContext | undefined> {
    const name = 'file' in source ? source.file : source.host
    const before = this.#kept.get(name)
    const kept = await keep(before, version, read, this.#teller(name))
    const { opened } = kept
    // Of many who needed it at once only the first sets it, and logs it.
    const now = this.#kept.get(name)
    if (now !== before && now?.version === version) return now.opened?.context
    this.#kept.set(name, kept)
    if (opened !== undefined && opened !== before?.opened) this.#logInUse(opened, source)
    return opened?.context
  }

  #isStandardFor(hostName: string): boolean {
    const certificate = this.#standard?.opened?.certificate
    return certificate !== undefined && coversHost(certificate, hostName)
  }

  #teller(certificate: string): Parameters<typeof keep>[3] {
    return (reason, hasOther) =>
      this.#options.log.error(
        { certificate, reason },
        `a TLS certificate cannot be used${hasOther ? ', the one before stays' : ''}:` +
          ' put it right, it is read again',
      )
  }

  #logInUse({ certificate }: OpenedKeyPair, source: Source): void {
    const { log } = this.#options
    const expires = certificate.validTo
    const fields = { ...source, expires }
    if (Date.parse(expires) > Date.now()) log.info(fields, 'TLS certificate in use')
    else log.warn(fields, 'the TLS certificate has expired: clients will not accept it')
  }
}

/** `*.example.com` for `pop.example.com` (RFC 9525 §6.3: one label, the first). */
function wildcardAbove(hostName: string): string {
  return hostName.replace(/^[^.]+/, '*')
}

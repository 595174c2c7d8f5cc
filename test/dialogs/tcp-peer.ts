/**
 * The real POP3 server on a real PostgreSQL, reached over TCP, so that every dialog runs against
 * what peers meet. Each connection gets a server, a domain and a maildrop of its own; what a dialog
 * wants arranged is arranged as it happens in life: another session's lease, a row deleted by
 * another.
 */
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { openLog } from '../../src/base/log.ts'
import { Secret } from '../../src/base/secret.ts'
import { apopUse } from '../../src/mail/auth/apop-secret.ts'
import { hashPassword } from '../../src/mail/auth/argon2.ts'
import { Authenticator } from '../../src/mail/auth/authenticator.ts'
import { LeaseKeeper } from '../../src/mail/maildrop/lease-keeper.ts'
import { ReadAheadBudget } from '../../src/mail/maildrop/reader.ts'
import { type RunningServer, startPop3Server } from '../../src/server/pop3-server.ts'
import type { TlsDoor } from '../../src/server/tls/door.ts'
import { insertBody, insertStretch, STRETCH_OCTETS } from '../../src/storage/bodies.ts'
import { deliver } from '../../src/storage/deliveries.ts'
import type { Database } from '../../src/storage/postgres/database.ts'
import { TestAuthority } from '../support/certificates.ts'
import { openDoor, POP3_DEFAULTS } from '../support/pop3-node.ts'
import { addDomain, TEST_KEYRING } from '../support/postgres.ts'
import { type Ability, type EventName, type Fixtures, parseOctets } from './dialog.ts'
import type { DialogConnection, DialogPeer } from './runner.ts'

const HOSTNAME = 'dewey'
/** Longer than any pause between two steps of a dialog on a busy machine. */
const SILENCE_DEADLINE_MS = 20_000
const AUTOLOGOUT_MS = 600_000
const STOP_GRACE_MS = 5_000

const log = openLog('silent')

interface TcpPeerOptions {
  db: Database
  /** Offers the ability `idle`, by closing after so long a silence; it must outlast a slow test. */
  autologoutMs?: number
}

export class TcpPeer implements DialogPeer {
  readonly abilities: ReadonlySet<Ability>
  readonly #db: Database
  readonly #keeper: LeaseKeeper
  readonly #autologoutMs: number
  readonly #hashes = new Map<string, Promise<string>>()
  #door: TlsDoor | undefined

  constructor({ db, autologoutMs }: TcpPeerOptions) {
    this.#db = db
    this.#autologoutMs = autologoutMs ?? AUTOLOGOUT_MS
    this.#keeper = new LeaseKeeper({ db, log, hostname: HOSTNAME, version: '0.0.0' })
    const abilities: Ability[] = ['plaintext-refused', 'apop-withheld', 'suspension', 'in-use']
    abilities.push('unique-ids', 'drain', 'lease-lost', 'deliver', 'remove')
    abilities.push('tls', 'policy', 'utf8-asked')
    if (autologoutMs !== undefined) abilities.push('idle')
    this.abilities = new Set(abilities)
  }

  async start(): Promise<void> {
    const certificate = await (await TestAuthority.create()).issue([HOSTNAME])
    this.#door = await openDoor({ db: this.#db, log, keyring: undefined, ...certificate })
    await this.#keeper.start()
  }

  async stop(): Promise<void> {
    this.#door?.close()
    await this.#keeper.stop()
  }

  async open(fixtures: Fixtures): Promise<DialogConnection> {
    const maildrop = await this.#makeMaildrop(fixtures)
    const db = this.#db
    const { policy, ownPolicy } = fixtures
    const server = await startPop3Server({
      ...POP3_DEFAULTS,
      db,
      log,
      keeper: this.#keeper,
      authenticator: new Authenticator({
        db,
        log,
        defaultDomain: maildrop.domainName,
        keyring: TEST_KEYRING,
        failureDelayMs: 0,
      }),
      budget: new ReadAheadBudget(),
      door: fixtures.isTlsOffered ? this.#door : undefined,
      hostname: HOSTNAME,
      plaintextAuth: fixtures.isPlaintextAllowed ? 'always' : 'never',
      autologoutMs: this.#autologoutMs,
      saslMechanisms: fixtures.saslMechanisms,
      isUtf8Asked: fixtures.isUtf8Asked,
      isApopOffered: () => fixtures.isApopOffered,
      policy: () => ({ policy, isPolicyByUser: ownPolicy !== undefined }),
    })
    const port = Number(server.addresses[0]?.split(':').at(-1))
    const socket = connect(port, '127.0.0.1')
    socket.setNoDelay(true)
    return new TcpConnection(socket, server, this.#keeper, maildrop)
  }

  async #makeMaildrop(fixtures: Fixtures): Promise<TestMaildrop> {
    const domainName = `${randomUUID()}.test`
    const domainId = await addDomain(this.#db, domainName)
    const { password, user, isSuspended, messages } = fixtures
    const { loginDelaySeconds, expireDays } = fixtures.ownPolicy ?? fixtures.policy
    await this.#db.kysely
      .updateTable('domains')
      .set({ login_delay_seconds: loginDelaySeconds, expire_days: expireDays ?? null })
      .where('domain_id', '=', domainId)
      .execute()
    const { user_id: userId } = await this.#db.kysely
      .insertInto('users')
      .values({
        domain_id: domainId,
        local_part: user,
        password_hash: await this.#hash(password),
        suspended: isSuspended,
      })
      .returning('user_id')
      .executeTakeFirstOrThrow()
    const secret = TEST_KEYRING.seal(apopUse(domainId, userId), new Secret(password))
    const update = this.#db.kysely.updateTable('users').set({ apop_secret: secret })
    await update.where('domain_id', '=', domainId).where('user_id', '=', userId).execute()
    const maildrop = new TestMaildrop(this.#db, domainName, domainId, userId, messages.length)
    for (const { content, uniqueId } of messages) await maildrop.add(content, uniqueId)
    if (fixtures.isInUse) await maildrop.occupy()
    return maildrop
  }

  /** Made once for each password: argon2 has its own tests. */
  #hash(password: string): Promise<string> {
    const hash = this.#hashes.get(password) ?? hashPassword(new Secret(password))
    this.#hashes.set(password, hash)
    return hash
  }
}

/** A maildrop in the database, as those who are not the session see and change it. */
class TestMaildrop {
  readonly domainName: string
  readonly #db: Database
  readonly #domainId: number
  readonly #userId: number
  readonly #messageCount: number
  /** Of another session, which has the maildrop from the beginning. */
  #occupant: string | undefined

  constructor(
    db: Database,
    domainName: string,
    domainId: number,
    userId: number,
    messageCount: number,
  ) {
    this.#db = db
    this.domainName = domainName
    this.#domainId = domainId
    this.#userId = userId
    this.#messageCount = messageCount
  }

  /** Uids of a fresh maildrop are 1, 2, 3 …: the message numbers of the beginning. */
  async add(content: Buffer, uniqueId?: string): Promise<void> {
    const [domainId, bodyId] = [this.#domainId, randomUUID()]
    const isChunked = content.length > STRETCH_OCTETS
    if (isChunked) await insertBody(this.#db, domainId, bodyId)
    for (let nth = 0; isChunked && nth * STRETCH_OCTETS < content.length; nth++) {
      const stretch = content.subarray(nth * STRETCH_OCTETS, (nth + 1) * STRETCH_OCTETS)
      await insertStretch(this.#db, domainId, bodyId, nth, stretch)
    }
    const digest = createHash('sha256').update(bodyId).digest()
    const imported = { digest, copy: 1, receivedAt: undefined, uniqueId }
    const results = await deliver(this.#db, {
      domainId,
      bodyId,
      bodyOctets: content.length,
      content: isChunked ? undefined : content,
      recipients: [{ userId: this.#userId, prefix: Buffer.alloc(0) }],
      ...(uniqueId === undefined ? {} : { imported }),
    })
    const { status } = results.get(this.#userId) ?? {}
    if (status !== 'delivered') throw new Error(`a message of the dialog is ${status}`)
  }

  async remove(number: number): Promise<void> {
    const { octets } = await this.#db.kysely
      .deleteFrom('messages')
      .where('domain_id', '=', this.#domainId)
      .where('user_id', '=', this.#userId)
      .where('uid', '=', number)
      .returning('octets')
      .executeTakeFirstOrThrow()
    await this.#db.kysely
      .updateTable('maildrops')
      .set((eb) => ({
        message_count: eb('message_count', '-', 1),
        octets: eb('octets', '-', octets),
      }))
      .where('domain_id', '=', this.#domainId)
      .where('user_id', '=', this.#userId)
      .execute()
  }

  async occupy(): Promise<void> {
    this.#occupant = randomUUID()
    await this.#db.kysely
      .insertInto('sessions')
      .values({
        domain_id: this.#domainId,
        user_id: this.#userId,
        session_id: this.#occupant,
        node_id: randomUUID(),
        client: '192.0.2.1',
        since: new Date(),
      })
      .execute()
  }

  /** What `popgres session kick` does. */
  async kick(): Promise<void> {
    await this.#db.kysely
      .deleteFrom('sessions')
      .where('domain_id', '=', this.#domainId)
      .where('user_id', '=', this.#userId)
      .execute()
  }

  /** Until no session but the occupant has the lease. Polled: a row that goes tells nobody. */
  async released(): Promise<void> {
    const deadline = performance.now() + SILENCE_DEADLINE_MS
    while (performance.now() < deadline) {
      const rows = await this.#db.kysely
        .selectFrom('sessions')
        .select('session_id')
        .where('domain_id', '=', this.#domainId)
        .where('user_id', '=', this.#userId)
        .execute()
      if (rows.every((row) => row.session_id === this.#occupant)) return
    }
    throw new Error('the lease was not released')
  }

  async numbersLeft(): Promise<number[]> {
    const rows = await this.#db.kysely
      .selectFrom('messages')
      .select('uid')
      .where('domain_id', '=', this.#domainId)
      .where('user_id', '=', this.#userId)
      .orderBy('uid')
      .execute()
    return rows.map((row) => row.uid).filter((uid) => uid <= this.#messageCount)
  }
}

class TcpConnection implements DialogConnection {
  #socket: Socket
  readonly #server: RunningServer
  readonly #keeper: LeaseKeeper
  readonly #maildrop: TestMaildrop
  #received: Buffer[] = []
  #isOver = false
  #dropped: Promise<void> | undefined
  #stopped: Promise<void> | undefined

  constructor(socket: Socket, server: RunningServer, keeper: LeaseKeeper, maildrop: TestMaildrop) {
    this.#socket = socket
    this.#server = server
    this.#keeper = keeper
    this.#maildrop = maildrop
    this.#listen()
  }

  #listen(): void {
    this.#socket.on('error', () => {}) // 'close' follows
    this.#socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk)
      this.#socket.emit('progress')
    })
    for (const name of ['end', 'close'])
      this.#socket.on(name, () => {
        this.#isOver = true
        this.#socket.emit('progress')
      })
  }

  async #encrypt(): Promise<void> {
    this.#socket.removeAllListeners('data')
    this.#socket = connectTls({ socket: this.#socket, rejectUnauthorized: false })
    this.#listen()
    await once(this.#socket, 'secureConnect')
  }

  async write(octets: Buffer): Promise<void> {
    if (this.#isOver || octets.length === 0) return
    await new Promise<void>((resolve) => this.#socket.write(octets, () => resolve()))
  }

  async read(): Promise<Buffer | undefined> {
    while (this.#received.length === 0 && !this.#isOver)
      await once(this.#socket, 'progress', { signal: AbortSignal.timeout(SILENCE_DEADLINE_MS) })
    if (this.#received.length === 0) return undefined
    const octets = Buffer.concat(this.#received)
    this.#received = []
    return octets
  }

  async event(name: EventName, argument: string): Promise<void> {
    if (name === 'deliver') await this.#maildrop.add(parseOctets(argument))
    else if (name === 'remove') await this.#maildrop.remove(Number(argument))
    else if (name === 'tls') await this.#encrypt()
    else if (name === 'drain') this.#stopped = this.#server.stop(STOP_GRACE_MS)
    else if (name === 'lease-lost') {
      await this.#maildrop.kick()
      await this.#keeper.beat()
    }
    // idle: the server's own timer is running
  }

  drop(): Promise<void> {
    this.#dropped ??= this.#dropOnce()
    return this.#dropped
  }

  async #dropOnce(): Promise<void> {
    this.#socket.destroy()
    await this.#maildrop.released()
    await (this.#stopped ?? this.#server.stop(0))
  }

  numbersLeft(): Promise<number[]> {
    return this.#maildrop.numbersLeft()
  }
}

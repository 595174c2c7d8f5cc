/**
 * The door for users who have not moved here yet, of domains that migrate: the password is shown to
 * the old POP3 server. If that takes it, the user is made if missing, the maildrop copied, and the
 * password kept; from then on the user is like any other (who has a password here has moved).
 *
 * A move goes on without its client, whose patience is short: what is not done by then is told as
 * temporary, and a later login finds it done or waits for the rest. Connections to an old server
 * are few, of all nodes together; who waits for one waits in turn, as for a password hash.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure, isFailure } from '../../base/failure.ts'
import { METRICS } from '../../base/metrics.ts'
import type { Secret } from '../../base/secret.ts'
import { type OldLogin, Pop3Client } from '../../remote/pop3-client.ts'
import { type LoginAccount, selectLoginAccount } from '../../storage/accounts.ts'
import { type MigratingDomain, selectMigratingDomains } from '../../storage/tenants/old-servers.ts'
import { makeDummyHash, spendPassword } from '../auth/argon2.ts'
import { type Asker, HashQueue } from '../auth/hash-queue.ts'
import type { LoginName } from '../auth/login-name.ts'
import type { Presence } from '../auth/login-peer.ts'
import { type Judgement, type LoginReason, unknownUser } from '../auth/proofs/judgement.ts'
import { verifyStored } from '../auth/schemes/scheme.ts'
import type { MaildropContext } from '../maildrop/maildrop.ts'
import { type MoveResult, moveUser } from './move-user.ts'

/** A login by password of somebody who has none here. */
export interface FirstLogin {
  name: LoginName
  /** undefined: not made yet */
  account: LoginAccount | undefined
  password: Secret
  /** address of the peer */
  client: string
  asker: Asker
  presence: Presence | undefined
}

export interface FirstLoginsOptions extends MaildropContext {
  /** How long a client is kept waiting: mail programs give up after a minute. */
  patienceMs?: number
}

const PATIENCE_MS = 40_000
/** LIMIT: a listing is in memory, beside the sessions of everybody else. */
const MESSAGES_MAX = 200_000
/** Who waits longer for a connection has a client that is about to give up. */
const QUEUE = { waitingMax: 512, deadlineMs: 30_000 } as const

/** A maildrop that is being copied by this process. */
interface Move {
  /** of the password that the old server took */
  digest: Buffer
  done: Promise<MoveResult>
}

interface OpenDomain extends MigratingDomain {
  queue: HashQueue
}

export class FirstLogins {
  readonly #options: FirstLoginsOptions
  /** By name. */
  #domains: ReadonlyMap<string, OpenDomain> = new Map()
  /** By address. */
  readonly #moves = new Map<string, Move>()
  readonly #running = new Set<Promise<void>>()
  readonly #key = randomBytes(32)
  readonly #stopping = new AbortController()

  constructor(options: FirstLoginsOptions) {
    this.#options = options
    // Each connection listens.
    setMaxListeners(0, this.#stopping.signal)
  }

  /** At each heartbeat. @throws {Failure} a storage failure; what was known stays */
  async refresh(): Promise<void> {
    const found = await selectMigratingDomains(this.#options.db)
    const before = this.#domains
    this.#domains = new Map(
      found.map((domain) => {
        const known = before.get(domain.domainName)
        // The same queue: what waits in it waits on, and its bound is what is true by now.
        const open: OpenDomain = known ? Object.assign(known, domain) : withQueue(domain)
        return [domain.domainName, open]
      }),
    )
  }

  isMigrating(name: LoginName | undefined): boolean {
    return name !== undefined && this.#domains.has(name.domainName)
  }

  /** Gives up what is under way; the next login goes on with it, here or elsewhere. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.allSettled(this.#running)
  }

  /** @throws {Failure} temporary: OLD_SERVER_AWAY, AUTH_OVERLOADED or a storage failure */
  async judge(login: FirstLogin): Promise<Judgement> {
    const { name, account, presence } = login
    const domain = this.#domains.get(name.domainName)
    if (domain === undefined || (account === undefined && !domain.makesUsers)) {
      await spendPassword(login.password, login.asker)
      return account ? { reason: 'no password', account } : unknownUser(name)
    }
    const began = performance.now()
    const move = this.#moves.get(addressOf(name))
    // Shown to the old server already, and taken: it need not be asked again.
    const asked = move?.digest.equals(this.#digest(login)) ? move : await this.#ask(domain, login)
    if ('reason' in asked) return asked
    const leftMs = began + (this.#options.patienceMs ?? PATIENCE_MS) - performance.now()
    const result = await Promise.race([asked.done, pause(leftMs, presence)])
    if (result === undefined) return { reason: 'being moved', account }
    if (result === 'in use') return { reason: result, account }
    if (result === 'unknown user') return unknownUser(name)
    const moved = await selectLoginAccount(this.#options.db, name.domainName, name.localPart)
    if (moved === undefined) return unknownUser(name)
    const isOwn = result === 'moved' || (await isPasswordOf(moved, login))
    return { reason: isOwn ? 'verified' : 'wrong password', account: moved }
  }

  /**
   * @returns as soon as the old server has said what it thinks of the password: the move that it
   *   began, or joined; the connection is taken until that is over
   */
  #ask(domain: OpenDomain, login: FirstLogin): Promise<Judgement | Move> {
    return new Promise((resolve, reject) => {
      const running = domain.queue
        .run(login.asker, () => this.#visit(domain, login, resolve))
        .catch(reject)
        .finally(() => this.#running.delete(running))
      this.#running.add(running)
    })
  }

  async #visit(
    domain: OpenDomain,
    login: FirstLogin,
    tell: (answer: Judgement | Move) => void,
  ): Promise<void> {
    const { name, account } = login
    // Those who wait get their turns one after the other then: none begins anything.
    const { signal } = this.#stopping
    if (signal.aborted) throw new Failure('OLD_SERVER_AWAY', 'this node stops: it is not asked')
    METRICS.movesOpen.of().add(1)
    let client: Pop3Client | undefined
    try {
      client = await Pop3Client.connect(domain, { messagesMax: MESSAGES_MAX, signal })
      const answer = await this.#show(client, domain, login)
      if (answer.kind === 'accepted') {
        const move = this.#join(domain, login, client)
        tell(move)
        await move.done.catch(() => {})
      } else {
        const { why, reply } = answer
        if (why !== 'credentials')
          this.#options.log.warn({ user: name.address, reply }, 'the old server lets nobody in now')
        tell({ reason: REASONS[why], account })
        count(why)
      }
      await client.quit()
    } catch (error) {
      count('away')
      throw error
    } finally {
      METRICS.movesOpen.of().add(-1)
      client?.close()
    }
  }

  /** Who hangs up on a password has not taken it either: no guess goes uncounted. */
  async #show(client: Pop3Client, domain: OpenDomain, { name, password }: FirstLogin) {
    const oldName = domain.userFormat === 'local' ? name.localPart : name.address
    try {
      return await client.logIn(oldName, password)
    } catch (error) {
      if (!isFailure(error, 'OLD_SERVER_AWAY') || this.#stopping.signal.aborted) throw error
      return { kind: 'refused', why: 'temporary', reply: error.message } satisfies OldLogin
    }
  }

  /** One move a user: who comes second only waits for it. */
  #join(domain: OpenDomain, login: FirstLogin, client: Pop3Client): Move {
    const address = addressOf(login.name)
    const known = this.#moves.get(address)
    if (known !== undefined) return known
    const done = moveUser(this.#options, domain, login, client).finally(() =>
      this.#moves.delete(address),
    )
    const move = { digest: this.#digest(login), done }
    this.#moves.set(address, move)
    done.then(
      (result) => count(result),
      (error: unknown) => {
        count('failed')
        const user = login.name.address
        this.#options.log.warn({ error, user }, 'a move was cut: the next login goes on with it')
      },
    )
    return move
  }

  #digest({ name, password }: FirstLogin): Buffer {
    const hmac = createHmac('sha256', this.#key).update(`${addressOf(name)}\0`)
    return hmac.update(password.reveal()).digest()
  }
}

function withQueue(domain: MigratingDomain): OpenDomain {
  const open = { ...domain } as OpenDomain
  open.queue = new HashQueue({
    ...QUEUE,
    /** This node's share of the connections. */
    get concurrency() {
      return Math.max(1, Math.floor(open.connectionsMax / open.nodeCount))
    },
  })
  return open
}

const REASONS = {
  credentials: 'refused by the old server',
  'in-use': 'in use on the old server',
  temporary: 'put off by the old server',
} as const satisfies Record<string, LoginReason>

/** What the old server has taken is not what was given here meanwhile. */
async function isPasswordOf(
  { passwordHash = '' }: LoginAccount,
  { password, asker }: FirstLogin,
): Promise<boolean> {
  return (await verifyStored(passwordHash, password, makeDummyHash(), asker)) === true
}

const count = (result: string): void => METRICS.moves.of(result).add()

const addressOf = ({ address }: LoginName): string => address.toLowerCase()

/** Ends sooner when the peer has gone. */
function pause(ms: number, presence: Presence | undefined): Promise<undefined> {
  const options = presence === undefined ? {} : { signal: presence.signal }
  return delay(Math.max(0, ms), undefined, { ...options, ref: false }).catch(() => undefined)
}

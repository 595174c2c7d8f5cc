/**
 * The pump: carries octets between one socket and one POP3 session, and carries out what the
 * session asks for. Replies of one batch of input go out in one write. Reading stops while an
 * outcome is owed or the peer does not take what was written, so nothing grows with what a peer
 * sends or ignores. A fault after "+OK" of a RETR destroys the connection: no dot, no -ERR, so that
 * no client takes a part for the whole.
 */
import type { Socket } from 'node:net'
import { assert } from '../base/assert.ts'
import { Failure, isFailure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import { Presence } from '../mail/auth/login-peer.ts'
import type { Maildrop } from '../mail/maildrop/maildrop.ts'
import type {
  LoginAttempt,
  Pop3Action,
  Pop3Outcome,
  Pop3Parameters,
} from '../protocol/pop3/actions.ts'
import { Pop3Session } from '../protocol/pop3/session.ts'
import type { EndReason } from '../protocol/session.ts'
import type { Connection } from './listener.ts'
import { type Login, type LoginContext, logIn, shownOf } from './login.ts'
import type { Pace } from './pace.ts'
import { encryptedPeer, type Pop3Peer } from './pop3-parameters.ts'
import { ReplyWriter } from './reply-writer.ts'
import type { TlsDoor } from './tls/door.ts'

export interface Pop3ConnectionContext extends LoginContext {
  autologoutMs: number
  /** Undefined: no TLS. */
  door: TlsDoor | undefined
}

/** Who has come in, and how. */
export interface Admission {
  /** As accepted, or TLS on top of it. */
  socket: Socket
  peer: Pop3Peer
  pace: Pace
  /** What is true for the peer, as it is now and after STLS. */
  parametersOf: (peer: Pop3Peer) => Pop3Parameters
}

/** A peer that does not close after our FIN is not waited for longer than this. */
const LINGER_MS = 5_000
const NOTHING = Buffer.alloc(0)
const octetsReceived = METRICS.pop3OctetsReceived.of()
const sessionsOpen = METRICS.pop3Sessions.of()
const EVENTS = ['data', 'drain', 'end', 'timeout', 'error', 'close'] as const

type Asked = Exclude<Pop3Action, { kind: 'send' | 'close' }>
type Retrieve = Extract<Pop3Action, { kind: 'retrieve' }>

export class Pop3Connection implements Connection {
  readonly closed: Promise<void>
  readonly #context: Pop3ConnectionContext
  readonly #pace: Pace
  readonly #parametersOf: Admission['parametersOf']
  readonly #session: Pop3Session
  readonly #log: Log
  readonly #presence = new Presence()
  #socket: Socket
  #writer: ReplyWriter
  #peer: Pop3Peer
  #login: Login | undefined
  /** How it logged in; undefined: it did not. */
  #mechanism: string | undefined
  /** Begun when nothing more will be asked of the maildrop. */
  #givenBack: Promise<void> | undefined
  /** Work in flight whose outcome is owed to the session. */
  #work: Promise<void> | undefined
  #isInputOver = false
  #isClosing = false
  #wasLeaseLostTold = false
  #closeReason = 'gone'
  #deletedCount = 0
  readonly #cameAt = performance.now()
  /** When the peer last asked for something or was answered. */
  #activeAt = this.#cameAt

  /** What the socket in use tells us. */
  readonly #listeners = {
    data: (chunk: Buffer) => this.#receive(chunk),
    drain: () => this.#pump(),
    end: () => {
      this.#isInputOver = true
      this.#pump()
    },
    timeout: () => this.#expire(),
    error: (error: Error) => this.#log.debug({ error, ...shownOf(this.#peer) }, 'socket error'),
    close: () => {
      this.#presence.leave()
      this.#resolveClosed()
    },
  }
  #resolveClosed = (): void => {}

  constructor(admission: Admission, context: Pop3ConnectionContext) {
    this.#context = context
    this.#pace = admission.pace
    this.#parametersOf = admission.parametersOf
    this.#session = new Pop3Session(admission.parametersOf(admission.peer))
    this.#log = context.log
    this.#peer = admission.peer
    this.#socket = admission.socket
    this.#writer = this.#attach(admission.socket)
    this.closed = new Promise<void>((resolve) => {
      this.#resolveClosed = resolve
    }).then(() => this.#finish())
    this.#pump()
  }

  /** From now on this is the socket. */
  #attach(socket: Socket): ReplyWriter {
    this.#socket = socket
    this.#writer = new ReplyWriter(socket)
    // Told only once, and perhaps before we listened.
    if (socket.readableEnded) this.#isInputOver = true
    socket.setTimeout(this.#context.autologoutMs)
    for (const event of EVENTS) socket.on(event, this.#listeners[event])
    return this.#writer
  }

  drain(): void {
    this.end('drain')
  }

  destroy(): void {
    this.#socket.destroy()
  }

  /** Ends the connection at once and without a word. */
  cut(reason: string): void {
    if (!this.#isClosing) this.#closeReason = reason
    this.#socket.destroy()
  }

  /**
   * Ends the session when it is between two commands, and then the connection. A lost lease does
   * not wait for a peer that reads slowly: what it is being sent is cut, without an end.
   */
  end(reason: EndReason): void {
    if (reason === 'lease-lost') {
      if (this.#wasLeaseLostTold) return
      this.#wasLeaseLostTold = true
      if (this.#writer.isInMessage || this.#socket.writableLength > 0) {
        this.cut(reason)
        return
      }
    }
    this.#session.end(reason)
    this.#pump()
  }

  #receive(chunk: Buffer): void {
    // Octets that a peer still sends are read and dropped: unread ones would turn our FIN into a
    // reset, which can take the last reply with it.
    if (this.#isClosing) return
    this.#activeAt = performance.now()
    octetsReceived.add(chunk.length)
    this.#pace.receive(chunk)
    if (this.#socket.destroyed) return
    this.#session.receive(chunk)
    this.#pump()
  }

  /**
   * Autologout: of a silent peer, and of one that has stopped reading (RFC 1939 §3). What takes
   * long because our own database does is not the peer's silence.
   */
  #expire(): void {
    const isPeerStuck = this.#isClosing || this.#socket.writableLength > 0
    if (!isPeerStuck && this.#work !== undefined) {
      this.#socket.setTimeout(this.#context.autologoutMs)
      return
    }
    if (isPeerStuck) this.cut('idle')
    else this.end('idle')
  }

  #pump(): void {
    this.#writer.wake()
    if (this.#socket.destroyed || this.#isClosing) return
    this.#checkTrust()
    try {
      while (this.#work === undefined && !this.#isClosing && !this.#socket.writableNeedDrain) {
        const action = this.#session.next()
        if (action === undefined) break
        this.#perform(action)
      }
    } catch (error) {
      this.#break(error)
    }
    this.#writer.flush()
    if (!this.#isClosing) this.#balance()
  }

  /** Reads on only when the session can use it; after the peer's last octet, closes. */
  #balance(): void {
    const isWaiting = this.#work !== undefined || this.#socket.writableNeedDrain
    if (!isWaiting && this.#isInputOver) this.#close('gone')
    else if (isWaiting && this.#session.isHolding) this.#socket.pause()
    else if (!isWaiting && this.#socket.isPaused()) this.#socket.resume()
    this.#pace.watchLine(!isWaiting)
  }

  /** No timer stops a process that was just woken: ask the clock before anything is said. */
  #checkTrust(): void {
    if (this.#login === undefined || this.#wasLeaseLostTold) return
    if (this.#context.keeper.isTrusted()) return
    this.#wasLeaseLostTold = true
    this.#session.end('lease-lost')
  }

  #perform(action: Pop3Action): void {
    if (action.kind === 'send') this.#writer.gather([action.bytes])
    else if (action.kind === 'retrieve' && this.#retrieveAtOnce(action)) return
    else if (action.kind === 'close' && action.reason === 'cut-short') this.cut(action.reason)
    else {
      this.#writer.flush()
      if (action.kind === 'close') this.#close(action.reason)
      else this.#start(action)
    }
  }

  #start(action: Asked): void {
    this.#work = this.#carryOut(action).catch((error: unknown) => this.#break(error))
  }

  async #carryOut(action: Asked): Promise<void> {
    let outcome: Pop3Outcome | undefined
    try {
      outcome = await this.#ask(action)
    } catch (error) {
      outcome = this.#refusalFor(action, error)
    }
    this.#work = undefined
    this.#activeAt = performance.now()
    if (this.#socket.destroyed || outcome === undefined) return
    this.#session.resume(this.#distrust(outcome))
    this.#pump()
  }

  #ask(action: Asked): Promise<Pop3Outcome> {
    if (action.kind === 'login') return this.#logIn(action.attempt)
    if (action.kind === 'scram-salt') return this.#scramSalt(action.name)
    if (action.kind === 'start-tls') return this.#startTls()
    const maildrop = this.#maildrop
    if (maildrop === undefined) throw new Failure('LEASE_LOST', 'no maildrop is open')
    switch (action.kind) {
      case 'list':
        return list(maildrop)
      case 'unique-ids':
        return uniqueIds(maildrop, action)
      case 'retrieve':
        return this.#retrieve(maildrop, action)
      case 'commit':
        return this.#commit(maildrop, action.uids)
    }
  }

  async #scramSalt(name: string): Promise<Pop3Outcome> {
    const salt = await this.#context.authenticator.scramSalt(name, this.#peer)
    return { kind: 'scram-salt', ...salt }
  }

  async #retrieve(maildrop: Maildrop, action: Retrieve): Promise<Pop3Outcome> {
    const outcome = await this.#writer.write(maildrop, await maildrop.read(action.uid), action)
    this.#noteFetched(action)
    return outcome
  }

  /** TOP of more lines than there are is RETR: some clients fetch like that. */
  #noteFetched({ uid, octets }: Retrieve): void {
    if (this.#writer.wasWhole) this.#maildrop?.notes.fetch(uid, octets)
  }

  get #maildrop(): Maildrop | undefined {
    return this.#login?.maildrop
  }

  /** The common case, a small message that was read ahead: no promise, no pause. */
  #retrieveAtOnce(action: Retrieve): boolean {
    const message = this.#maildrop?.take(action.uid)
    if (message === undefined) return false
    let outcome: Pop3Outcome | undefined
    try {
      outcome = this.#writer.gatherMessage(message, action)
      this.#noteFetched(action)
    } catch (error) {
      outcome = this.#refusalFor(action, error)
    }
    assert(outcome !== undefined, 'what was read ahead is whole')
    this.#session.resume(outcome)
    return true
  }

  /** An answer that arrived after our lease may have gone to another is not given any more. */
  #distrust(outcome: Pop3Outcome): Pop3Outcome {
    const isListing = outcome.kind === 'listed' || outcome.kind === 'unique-ids'
    if (!isListing || (this.#context.keeper.isTrusted() && !this.#wasLeaseLostTold)) return outcome
    return { kind: 'unavailable', reason: 'temporary' }
  }

  /** A peer that goes away while it waits for its turn gives its place up. */
  async #logIn(attempt: LoginAttempt): Promise<Pop3Outcome> {
    const { mechanism } = attempt
    const beganAt = performance.now()
    const result = await logIn(this.#context, attempt, this.#peer, {
      presence: this.#presence,
      idleMs: () => this.#idleMs(),
      end: () => this.end('lease-lost'),
    })
    const shown = result.kind === 'opened' ? result.kind : result.reason
    METRICS.loginAttempts.of(mechanism, shown).add()
    if (result.kind === 'login-refused') return result
    METRICS.loginSeconds.of().observe((performance.now() - beganAt) / 1_000)
    sessionsOpen.add(1)
    this.#login = result
    this.#mechanism = mechanism
    this.#pace.logIn(this.#socket)
    return result.outcome
  }

  #idleMs(): number {
    const isBusy = this.#work !== undefined || this.#socket.writableLength > 0
    return isBusy ? 0 : performance.now() - this.#activeAt
  }

  /**
   * RFC 2595 §4. Nothing that was sent in the clear gets past this: the session has forgotten what
   * it held, and what the socket holds or brings from now on is read as TLS.
   */
  async #startTls(): Promise<Pop3Outcome> {
    const { door } = this.#context
    assert(door !== undefined, 'STLS is offered where there is a door')
    const plain = this.#socket
    plain.pause()
    for (const event of ['data', 'drain', 'end', 'timeout'] as const)
      plain.off(event, this.#listeners[event])
    plain.setTimeout(0)
    // "+OK" must have left before TLS writes to the same socket.
    await new Promise((resolve) => plain.write(NOTHING, resolve))
    const encrypted = await door.encrypt(plain)
    plain.off('close', this.#listeners.close)
    this.#attach(encrypted.socket)
    this.#peer = encryptedPeer(this.#peer, encrypted)
    return { kind: 'secured', parameters: this.#parametersOf(this.#peer) }
  }

  async #commit(maildrop: Maildrop, uids: Int32Array): Promise<Pop3Outcome> {
    const result = await maildrop.commit(uids)
    METRICS.pop3Commits.of(result).add()
    if (result === 'undecided') return { kind: 'commit-undecided' }
    if (result !== 'committed') return { kind: 'commit-failed', reason: result }
    this.#deletedCount = uids.length
    METRICS.pop3Deleted.of().add(uids.length)
    return { kind: 'committed' }
  }

  /**
   * What the session is answered when `ask` threw; undefined if the connection had to be destroyed.
   */
  #refusalFor(action: Asked, error: unknown): Pop3Outcome | undefined {
    if (action.kind === 'start-tls') {
      this.#log.info({ ...shownOf(this.#peer), reason: String(error) }, 'TLS handshake failed')
      this.cut('tls')
      return undefined
    }
    const level = this.#socket.destroyed ? 'debug' : 'warn'
    this.#log[level]({ error, ...shownOf(this.#peer), action: action.kind }, 'a command failed')
    if (action.kind === 'login')
      METRICS.loginAttempts.of(action.attempt.mechanism, 'temporary').add()
    if (action.kind === 'login' || action.kind === 'scram-salt')
      return { kind: 'login-refused', reason: 'temporary' }
    if (action.kind === 'commit') return { kind: 'commit-undecided' }
    if (this.#writer.isInMessage) {
      this.#socket.destroy()
      return undefined
    }
    if (isFailure(error, 'MESSAGE_GONE')) return { kind: 'unavailable', reason: 'gone' }
    if (isFailure(error, 'MESSAGE_DAMAGED')) return { kind: 'unavailable', reason: 'damaged' }
    return { kind: 'unavailable', reason: 'temporary' }
  }

  /** A bug of ours: this connection ends, nothing else. */
  #break(error: unknown): void {
    this.#log.error({ error, ...shownOf(this.#peer) }, 'a bug ended the connection')
    this.cut('bug')
  }

  #close(reason: string): void {
    this.#isClosing = true
    this.#closeReason = reason
    // Now, not when the peer has closed too: the next login must find the maildrop free.
    void this.#giveBack()
    // The wait for the peer's FIN begins when our last octet has left; until then it may be slow.
    this.#socket.end(() => this.#linger())
    this.#socket.resume()
  }

  #linger(): void {
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS)
    this.#socket.once('close', () => clearTimeout(timer))
  }

  /** The lease and the places of the session. Nothing may be in flight; more calls do no harm. */
  #giveBack(): Promise<void> {
    const giveBack = async (): Promise<void> => {
      await this.#maildrop?.close(this.#closeReason)
      if (this.#login === undefined) return
      this.#login.leave()
      sessionsOpen.add(-1)
    }
    this.#givenBack ??= giveBack()
    return this.#givenBack
  }

  async #finish(): Promise<void> {
    this.#writer.wake()
    await this.#work
    await this.#giveBack()
    METRICS.pop3SessionEnds.of(this.#closeReason).add()
    const { client, tls, host } = this.#peer
    this.#log.info(
      {
        client,
        tls: tls ?? 'none',
        host,
        session: this.#maildrop?.lease.sessionId,
        user: this.#login?.user,
        mechanism: this.#mechanism,
        reason: this.#closeReason,
        retrieved: this.#writer.messageCount,
        octets: this.#writer.octets,
        deleted: this.#deletedCount,
        ms: Math.round(performance.now() - this.#cameAt),
      },
      'connection closed',
    )
  }
}

async function list(maildrop: Maildrop): Promise<Pop3Outcome> {
  const { uids, octets } = await maildrop.list()
  return { kind: 'listed', uids, octets }
}

async function uniqueIds(
  maildrop: Maildrop,
  { firstUid, lastUid }: Extract<Pop3Action, { kind: 'unique-ids' }>,
): Promise<Pop3Outcome> {
  return { kind: 'unique-ids', ...(await maildrop.uniqueIds(firstUid, lastUid)) }
}

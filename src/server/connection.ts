/**
 * The pump: carries octets between one socket and one POP3 session, and carries out what the
 * session asks for. Replies of one batch of input go out in one write. Reading stops while an
 * outcome is owed or the peer does not take what was written, so nothing grows with what a peer
 * sends or ignores.
 *
 * A fault after "+OK" of a RETR destroys the connection: no dot, no -ERR, so that no client takes a
 * part for the whole.
 */
import type { Socket } from 'node:net'
import { Failure, isFailure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import type { Authenticator, LoginVerdict } from '../mail/auth/authenticator.ts'
import { type Maildrop, type MaildropContext, openMaildrop } from '../mail/maildrop/maildrop.ts'
import type { LoginAttempt, Pop3Action, Pop3Outcome } from '../protocol/pop3/actions.ts'
import type { Pop3Session } from '../protocol/pop3/session.ts'
import type { EndReason } from '../protocol/session.ts'
import type { Connection } from './listener.ts'
import { MessageWriter } from './message-writer.ts'

export interface Pop3ConnectionContext extends MaildropContext {
  authenticator: Authenticator
  autologoutMs: number
}

/** A peer that does not close after our FIN is not waited for longer than this. */
const LINGER_MS = 5_000

type Asked = Exclude<Pop3Action, { kind: 'send' | 'close' }>

export class Pop3Connection implements Connection {
  readonly closed: Promise<void>
  readonly #socket: Socket
  readonly #session: Pop3Session
  readonly #context: Pop3ConnectionContext
  readonly #client: string
  readonly #log: Log
  readonly #writer: MessageWriter
  #maildrop: Maildrop | undefined
  /** Address of who logged in, for the log. */
  #user: string | undefined
  /** Work in flight whose outcome is owed to the session. */
  #work: Promise<void> | undefined
  #isInputOver = false
  #isClosing = false
  #wasLeaseLostTold = false
  #closeReason = 'gone'
  #deletedCount = 0

  constructor(socket: Socket, session: Pop3Session, context: Pop3ConnectionContext, log: Log) {
    this.#socket = socket
    this.#session = session
    this.#context = context
    this.#client = clientOf(socket)
    this.#log = log
    this.#writer = new MessageWriter(socket)
    this.closed = new Promise((resolve) => {
      socket.once('close', () => void this.#finish().then(resolve))
    })
    socket.setTimeout(context.autologoutMs)
    socket.on('data', (chunk: Buffer) => this.#receive(chunk))
    socket.on('drain', () => this.#pump())
    socket.on('end', () => {
      this.#isInputOver = true
      this.#pump()
    })
    socket.on('timeout', () => this.#expire())
    socket.on('error', (error) => this.#log.debug({ error, client: this.#client }, 'socket error'))
    this.#pump()
  }

  drain(): void {
    this.end('drain')
  }

  destroy(): void {
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
        this.#closeReason = reason
        this.#socket.destroy()
        return
      }
    }
    this.#session.end(reason)
    this.#pump()
  }

  #receive(chunk: Buffer): void {
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
    this.#closeReason = 'idle'
    if (isPeerStuck) this.#socket.destroy()
    else this.end('idle')
  }

  #pump(): void {
    if (this.#socket.destroyed || this.#isClosing) return
    this.#checkTrust()
    this.#socket.cork()
    try {
      while (this.#work === undefined && !this.#isClosing && !this.#socket.writableNeedDrain) {
        const action = this.#session.next()
        if (action === undefined) break
        this.#perform(action)
      }
    } catch (error) {
      this.#break(error)
    }
    this.#socket.uncork()
    if (!this.#isClosing) this.#balance()
  }

  /** Reads on only when the session can use it; after the peer's last octet, closes. */
  #balance(): void {
    const isWaiting = this.#work !== undefined || this.#socket.writableNeedDrain
    if (!isWaiting && this.#isInputOver) this.#close('gone')
    else if (isWaiting && !this.#socket.isPaused()) this.#socket.pause()
    else if (!isWaiting && this.#socket.isPaused()) this.#socket.resume()
  }

  /** No timer stops a process that was just woken: ask the clock before anything is said. */
  #checkTrust(): void {
    if (this.#maildrop === undefined || this.#wasLeaseLostTold) return
    if (this.#context.keeper.isTrusted()) return
    this.#wasLeaseLostTold = true
    this.#session.end('lease-lost')
  }

  #perform(action: Pop3Action): void {
    if (action.kind === 'send') this.#socket.write(action.bytes)
    else if (action.kind === 'close') this.#close(action.reason)
    else if (action.kind === 'retrieve' && this.#retrieveAtOnce(action)) return
    else this.#start(action)
  }

  #start(action: Asked): void {
    this.#work = this.#ask(action)
      .catch((error: unknown) => this.#refusalFor(action, error))
      .then((outcome) => {
        this.#work = undefined
        if (this.#socket.destroyed || outcome === undefined) return
        this.#session.resume(this.#distrust(outcome))
        this.#pump()
      })
      .catch((error: unknown) => this.#break(error))
  }

  async #ask(action: Asked): Promise<Pop3Outcome> {
    if (action.kind === 'login') return this.#login(action.attempt)
    const maildrop = this.#maildrop
    if (maildrop === undefined) throw new Failure('LEASE_LOST', 'no maildrop is open')
    if (action.kind === 'list') return { kind: 'listed', ...(await maildrop.list()) }
    if (action.kind === 'unique-ids')
      return { kind: 'unique-ids', uniqueIds: await maildrop.uniqueIds() }
    if (action.kind === 'retrieve') {
      await this.#writer.write(maildrop, await maildrop.read(action.uid), action)
      return { kind: 'retrieved' }
    }
    return this.#commit(maildrop, action.uids)
  }

  /** The common case, a small message that was read ahead: no promise, no pause. */
  #retrieveAtOnce(action: Extract<Pop3Action, { kind: 'retrieve' }>): boolean {
    const message = this.#maildrop?.take(action.uid)
    if (message === undefined) return false
    try {
      this.#writer.writeAtOnce(message, action)
      this.#session.resume({ kind: 'retrieved' })
    } catch (error) {
      const outcome = this.#refusalFor(action, error)
      if (outcome !== undefined) this.#session.resume(outcome)
    }
    return true
  }

  /** An answer that arrived after our lease may have gone to another is not given any more. */
  #distrust(outcome: Pop3Outcome): Pop3Outcome {
    const isListing = outcome.kind === 'listed' || outcome.kind === 'unique-ids'
    if (!isListing || this.#context.keeper.isTrusted()) return outcome
    return { kind: 'unavailable', reason: 'temporary' }
  }

  async #login(attempt: LoginAttempt): Promise<Pop3Outcome> {
    const verdict = await this.#verify(attempt)
    if (verdict.kind === 'refused') return { kind: 'login-refused', reason: verdict.reason }
    const { account } = verdict
    const user = `${account.localPart}@${account.domainName}`
    const endLease = () => this.end('lease-lost')
    const result = await openMaildrop(this.#context, account, this.#client, endLease)
    if (result.kind !== 'opened') {
      const reason = result.kind === 'in-use' ? 'in use' : 'credential changed'
      this.#log.info({ client: this.#client, user, reason }, 'login refused')
      return {
        kind: 'login-refused',
        reason: result.kind === 'in-use' ? 'in-use' : 'bad-credentials',
      }
    }
    this.#user = user
    this.#maildrop = result.maildrop
    const { counters, lease, uidPrefix } = result.maildrop
    this.#log.info({ client: this.#client, user, session: lease.sessionId }, 'login')
    return {
      kind: 'opened',
      displayName: account.localPart,
      messageCount: counters.messageCount,
      octets: counters.octets,
      uidPrefix,
      hasUniqueIds: counters.hasUniqueIds,
    }
  }

  /** A peer that goes away while it waits for its turn gives its place up. */
  async #verify(attempt: LoginAttempt): Promise<LoginVerdict> {
    const gone = new AbortController()
    const abort = () => gone.abort()
    this.#socket.once('close', abort)
    try {
      return await this.#context.authenticator.verify(attempt, this.#client, gone.signal)
    } finally {
      this.#socket.off('close', abort)
    }
  }

  async #commit(maildrop: Maildrop, uids: Int32Array): Promise<Pop3Outcome> {
    const result = await maildrop.commit(uids)
    if (result === 'committed') this.#deletedCount = uids.length
    if (result === 'committed') return { kind: 'committed' }
    if (result === 'undecided') return { kind: 'commit-undecided' }
    return { kind: 'commit-failed', reason: result }
  }

  /**
   * What the session is answered when `ask` threw; undefined if the connection had to be destroyed.
   */
  #refusalFor(action: Asked, error: unknown): Pop3Outcome | undefined {
    const level = this.#socket.destroyed ? 'debug' : 'warn'
    this.#log[level]({ error, client: this.#client, action: action.kind }, 'a command failed')
    if (action.kind === 'login') return { kind: 'login-refused', reason: 'temporary' }
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
    this.#closeReason = 'bug'
    this.#log.error({ error, client: this.#client }, 'a bug ended the connection')
    this.#socket.destroy()
  }

  #close(reason: string): void {
    this.#isClosing = true
    this.#closeReason = reason
    // The wait for the peer's FIN begins when our last octet has left; until then it may be slow.
    this.#socket.end(() => this.#linger())
    // Octets that a peer still sends are read and dropped: unread ones would turn our FIN into a
    // reset, which can take the last reply with it.
    this.#socket.removeAllListeners('data').resume()
  }

  #linger(): void {
    const timer = setTimeout(() => this.#socket.destroy(), LINGER_MS)
    this.#socket.once('close', () => clearTimeout(timer))
  }

  async #finish(): Promise<void> {
    this.#writer.abandon()
    await this.#work
    await this.#maildrop?.close()
    this.#log.info(
      {
        client: this.#client,
        session: this.#maildrop?.lease.sessionId,
        user: this.#user,
        reason: this.#closeReason,
        retrieved: this.#writer.messageCount,
        octets: this.#writer.octets,
        deleted: this.#deletedCount,
      },
      'connection closed',
    )
  }
}

/** Address of the peer for logs and lists; a Unix socket has none. */
export function clientOf(socket: Socket): string {
  return (socket.remoteAddress ?? 'local').replace(/^::ffff:(?=\d+\.)/, '')
}

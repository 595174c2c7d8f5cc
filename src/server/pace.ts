/**
 * How slow a peer may be. From accept to login there is a total of time and of octets; a line that
 * was begun is finished soon; after login a peer that is owed octets takes them at a minimum rate.
 * Silence between commands is not looked at here: that is autologout, RFC 1939 §3.
 *
 * What a slow peer costs is a socket and a few timers: no connection to the database is held for
 * it. A peer that is too slow is cut off without a word.
 */
import type { Socket } from 'node:net'
import { LF } from '../protocol/wire/ascii.ts'

export interface PaceRules {
  /** From accept to the end of a PROXY header; a lost segment is sent again within 3 s. */
  proxyHeaderMs: number
  /** From accept to login, TLS handshake included. */
  loginMs: number
  /** What a peer may send before it is logged in; a long token is 16 KiB. */
  octetsBeforeLogin: number
  /** From the first octet of a line to its end. */
  lineMs: number
  /** How often the transfer rate is looked at, and over what time it is averaged. */
  rateCheckMs: number
  rateWindowMs: number
  /** Octets a second. The kernel tells of what it sent in lumps: little cannot be told exactly. */
  rateMin: number
}

/** LIMIT: all of these; the settings change the time to log in. */
export const PACE_RULES: PaceRules = {
  proxyHeaderMs: 5_000,
  loginMs: 120_000,
  octetsBeforeLogin: 65_536,
  lineMs: 60_000,
  rateCheckMs: 30_000,
  rateWindowMs: 120_000,
  rateMin: 64,
}

export type TooSlow = 'login-timeout' | 'too-much-before-login' | 'slow-line' | 'slow-reader'

export class Pace {
  readonly #rules: PaceRules
  /** The socket that was accepted, whatever TLS is on top of it. */
  readonly #accepted: Socket
  readonly #cut: (reason: TooSlow) => void
  /** Before login the time for it, then the watch over the rate: one timer a session. */
  #timer: NodeJS.Timeout
  #octetsLeft: number
  #isLineOpen = false
  #lineTimer: NodeJS.Timeout | undefined

  /** The time to log in begins now. `cut` is called at most once for each reason. */
  constructor(rules: PaceRules, accepted: Socket, cut: (reason: TooSlow) => void) {
    this.#rules = rules
    this.#accepted = accepted
    this.#cut = cut
    this.#octetsLeft = rules.octetsBeforeLogin
    this.#timer = setTimeout(() => cut('login-timeout'), rules.loginMs)
    accepted.once('close', () => this.#stop())
  }

  /** Octets of POP3 came in. */
  receive(chunk: Buffer): void {
    this.#octetsLeft -= chunk.length
    if (this.#octetsLeft < 0) this.#cut('too-much-before-login')
    const lf = chunk.lastIndexOf(LF)
    if (lf !== -1) this.#stopLine()
    this.#isLineOpen = lf === -1 || lf < chunk.length - 1
  }

  /** @param isReading false: we do not read now, so the peer is not to blame for an open line */
  watchLine(isReading: boolean): void {
    if (!isReading) this.#stopLine()
    else if (this.#isLineOpen)
      this.#lineTimer ??= setTimeout(() => this.#cut('slow-line'), this.#rules.lineMs)
  }

  /** @param socket on which replies are written: `accepted`, or TLS on top of it */
  logIn(socket: Socket): void {
    // Who went while the login was under way is not watched: nobody would stop it any more.
    if (this.#accepted.destroyed) return
    clearTimeout(this.#timer)
    this.#octetsLeft = Number.POSITIVE_INFINITY
    const { rateCheckMs, rateWindowMs, rateMin } = this.#rules
    let since = performance.now()
    let takenBefore = octetsTaken(this.#accepted)
    const check = () => {
      const now = performance.now()
      const taken = octetsTaken(this.#accepted)
      const isOwed = socket.writableLength > 0
      if (isOwed && now - since < rateWindowMs) return
      if (isOwed && taken - takenBefore < ((now - since) / 1_000) * rateMin)
        this.#cut('slow-reader')
      since = now
      takenBefore = taken
    }
    this.#timer = setInterval(check, rateCheckMs)
  }

  #stopLine(): void {
    clearTimeout(this.#lineTimer)
    this.#lineTimer = undefined
  }

  #stop(): void {
    clearTimeout(this.#timer)
    this.#stopLine()
  }
}

/**
 * Octets that the kernel has taken over. A socket's own figures count a write when it is whole, and
 * one write may be 256 KiB: minutes, for a slow peer. So libuv is asked; `_handle` is not promised
 * by node's documentation, and without it the rate is only known by whole writes.
 */
function octetsTaken(socket: Socket): number {
  const { _handle: handle } = socket as unknown as {
    _handle?: { bytesWritten?: number; writeQueueSize?: number } | null
  }
  const { bytesWritten, writeQueueSize } = handle ?? {}
  if (bytesWritten === undefined || writeQueueSize === undefined)
    return socket.bytesWritten - socket.writableLength
  return bytesWritten - writeQueueSize
}

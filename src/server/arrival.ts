/**
 * The way in, from accept to a POP3 session: a place in all, the balancer's word on who this is, a
 * place for the client's network, TLS on the port for it. Whoever is turned away on the POP3 port
 * is told why; on the POP3S port nothing can be said before the handshake.
 */
import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { Failure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import type { Networks } from '../base/network.ts'
import { sourceOf } from '../mail/auth/source.ts'
import { selectTlsHost } from '../storage/certificates.ts'
import { Pop3Connection, type Pop3ConnectionContext } from './connection.ts'
import type { Leave, Places } from './connection-limits.ts'
import type { Connection } from './listener.ts'
import { shownOf } from './login.ts'
import { Pace, type PaceRules } from './pace.ts'
import {
  directPeer,
  encryptedPeer,
  type Pop3Offer,
  type Pop3Peer,
  parametersOf,
  relayedPeer,
} from './pop3-parameters.ts'
import { readProxyHeader } from './proxy-protocol.ts'

export interface ArrivalContext extends Pop3ConnectionContext {
  offer: Pop3Offer
  /** Who connects from there must begin with a PROXY header. */
  proxyNetworks: Networks
  paceRules: PaceRules
  /** Of this worker; one key, the empty one. */
  connectionPlaces: Places
  /** Of this worker, by the network of the client. */
  networkPlaces: Places
}

/** Turned away: `reply` is what the peer reads, if it can; the log has the other. */
interface Rejection {
  reason: string
  reply: string
}

const TOO_MANY = '-ERR [SYS/TEMP] too many connections, try again later\r\n'
const connectionsOpen = METRICS.pop3Connections.of()
const NOT_NOW = '-ERR [SYS/TEMP] service is not available now, try again later\r\n'

export class Arrival implements Connection {
  readonly closed: Promise<void>
  readonly #accepted: Socket
  readonly #isTlsFirst: boolean
  readonly #context: ArrivalContext
  readonly #log: Log
  readonly #pace: Pace
  readonly #leaves: Leave[] = []
  #peer: Pop3Peer
  #connection: Pop3Connection | undefined
  #isTurnedAway = false

  /** @param isTlsFirst RFC 8314: the handshake comes before the greeting */
  constructor(socket: Socket, isTlsFirst: boolean, context: ArrivalContext) {
    this.#accepted = socket
    this.#isTlsFirst = isTlsFirst
    this.#context = context
    this.#log = context.log
    this.#peer = directPeer(socket)
    this.#pace = new Pace(context.paceRules, socket, (reason) => this.#cut(reason))
    socket.on('error', () => {}) // 'close' follows
    this.closed = this.#stay()
  }

  /** From coming in to the end of all that came of it. */
  async #stay(): Promise<void> {
    connectionsOpen.add(1)
    const closed = new Promise<void>((resolve) => this.#accepted.once('close', () => resolve()))
    await this.#comeIn()
    await closed
    await this.#connection?.closed
    for (const leave of this.#leaves) leave()
    connectionsOpen.add(-1)
  }

  drain(): void {
    if (this.#connection === undefined) this.#accepted.destroy()
    else this.#connection.drain()
  }

  destroy(): void {
    this.#accepted.destroy()
  }

  #cut(reason: string): void {
    if (this.#connection !== undefined) this.#connection.cut(reason)
    else this.#turnAway({ reason, reply: '' })
  }

  /** Never fails: whoever cannot come in is turned away. */
  async #comeIn(): Promise<void> {
    try {
      const rejection = await this.#tryToComeIn()
      if (rejection !== undefined) this.#turnAway(rejection)
    } catch (error) {
      if (!(error instanceof Failure)) this.#log.error({ error }, 'a bug ended the connection')
      this.#turnAway({ reason: String(error), reply: '' })
    }
  }

  /** Without a balancer and TLS, the greeting leaves before this returns for the first time. */
  async #tryToComeIn(): Promise<Rejection | undefined> {
    const { proxyNetworks, connectionPlaces, networkPlaces } = this.#context
    if (!this.#enter(connectionPlaces, ''))
      return { reason: 'too many connections', reply: TOO_MANY }
    if (proxyNetworks.contains(this.#peer.client)) {
      const rejection = await this.#hearBalancer()
      if (rejection !== undefined) return rejection
    }
    if (!this.#enter(networkPlaces, sourceOf(this.#peer.client)))
      return { reason: 'too many connections from its network', reply: TOO_MANY }
    const socket = this.#isTlsFirst ? await this.#encrypt() : this.#accepted
    if (socket.destroyed) return undefined
    const timestamp = this.#context.offer.isApopOffered()
      ? makeTimestamp(this.#context.offer.hostname)
      : undefined
    this.#connection = new Pop3Connection(
      {
        socket,
        peer: this.#peer,
        pace: this.#pace,
        parametersOf: (peer) => parametersOf(peer, this.#context.offer, timestamp),
      },
      this.#context,
    )
    METRICS.pop3Arrivals.of('greeted').add()
    return undefined
  }

  #enter(places: Places, key: string): boolean {
    const leave = places.enter(key)
    if (leave !== undefined) this.#leaves.push(leave)
    return leave !== undefined
  }

  async #hearBalancer(): Promise<Rejection | undefined> {
    const header = await readProxyHeader(this.#accepted, this.#context.paceRules.proxyHeaderMs)
    if (header === undefined) return { reason: 'no PROXY header', reply: '' }
    const { hostName } = header
    try {
      const host = hostName && (await selectTlsHost(this.#context.db, hostName, hostName))
      const hostDomain = host ? host.domainName : undefined
      this.#peer = relayedPeer(this.#accepted, header, hostDomain)
      const { readableEnded, destroyed } = this.#accepted
      return readableEnded || destroyed ? { reason: 'the peer is gone', reply: '' } : undefined
    } catch (error) {
      // A bare name would be taken for one of another domain, and the password for a wrong one.
      this.#log.warn({ error, host: hostName }, 'could not look whose host this is')
      return { reason: 'host not looked up', reply: NOT_NOW }
    }
  }

  async #encrypt(): Promise<Socket> {
    const { door } = this.#context
    if (door === undefined) throw new Failure('TLS_HANDSHAKE', 'there is no certificate to show')
    const encrypted = await door.encrypt(this.#accepted)
    this.#peer = encryptedPeer(this.#peer, encrypted)
    return encrypted.socket
  }

  #turnAway({ reason, reply }: Rejection): void {
    if (this.#isTurnedAway) return
    this.#isTurnedAway = true
    METRICS.pop3Arrivals.of('refused').add()
    this.#log.info({ ...shownOf(this.#peer), reason }, 'connection refused')
    if (this.#isTlsFirst || reply === '') this.#accepted.destroy()
    else this.#accepted.end(reply, () => this.#accepted.destroy())
  }
}

/**
 * RFC 1939 §7: different at each greeting, in the form of an RFC 5322 msg-id. Random, because an
 * attacker who foresees it can prepare collisions of MD5.
 */
function makeTimestamp(hostname: string): string {
  return `<${process.pid}.${Date.now()}.${randomUUID()}@${hostname}>`
}

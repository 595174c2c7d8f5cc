/**
 * The POP3 front door of one worker: the plain port, where STLS may follow, and the port of POP3S.
 * Both share the limits and lead to the same sessions.
 */
import type { Socket } from 'node:net'
import type { ListenAddress, Networks } from '../base/network.ts'
import { Arrival, type ArrivalContext } from './arrival.ts'
import type { Pop3ConnectionContext } from './connection.ts'
import { type ConnectionLimits, Places } from './connection-limits.ts'
import { Listener } from './listener.ts'
import { PACE_RULES, type PaceRules } from './pace.ts'
import type { Pop3Offer } from './pop3-parameters.ts'

export interface Pop3ServerOptions
  extends Omit<Pop3ConnectionContext, 'sessionPlaces' | 'userPlaces'>,
    Omit<Pop3Offer, 'isTlsReady'> {
  addresses: readonly ListenAddress[]
  /** RFC 8314: TLS from the first octet. */
  tlsAddresses: readonly ListenAddress[]
  /** Load balancers, who must begin with a PROXY header. */
  proxyNetworks: Networks
  limits: ConnectionLimits
  /** What differs from PACE_RULES. */
  pace?: Partial<PaceRules>
  keepAliveMs?: number
}

/** LIMIT: one has the maildrop open, the others wait for it where the domain lets them. */
const SESSIONS_PER_USER = 8

/** A protocol server of a worker, POP3 or LMTP. */
export interface RunningServer {
  /** As bound, in the form of the settings. */
  readonly addresses: readonly string[]
  /** Accepts no more; resolves when what is open has ended by itself. */
  retire(): Promise<void>
  /** Accepts no more; what is open is told, and destroyed after `graceMs`. */
  stop(graceMs: number): Promise<void>
}

export interface RunningPop3Server extends RunningServer {
  readonly tlsAddresses: readonly string[]
}

export async function startPop3Server(options: Pop3ServerOptions): Promise<RunningPop3Server> {
  const { door, limits, keepAliveMs } = options
  const context: ArrivalContext = {
    ...options,
    offer: { ...options, isTlsReady: () => door?.isReady === true },
    paceRules: { ...PACE_RULES, ...options.pace },
    connectionPlaces: new Places(limits.connections),
    networkPlaces: new Places(limits.connectionsPerNetwork),
    sessionPlaces: new Places(limits.sessionsPerDomain),
    userPlaces: new Places(SESSIONS_PER_USER),
  }
  const listen = (isTlsFirst: boolean) =>
    new Listener((socket: Socket) => new Arrival(socket, isTlsFirst, context), keepAliveMs)
  const plain = listen(false)
  const encrypted = listen(true)
  const [addresses, tlsAddresses] = await Promise.all([
    plain.open(options.addresses),
    encrypted.open(options.tlsAddresses),
  ])
  return {
    addresses,
    tlsAddresses,
    retire: async () => {
      await Promise.all([plain.retire(), encrypted.retire()])
    },
    stop: async (graceMs) => {
      await Promise.all([plain.close(graceMs), encrypted.close(graceMs)])
    },
  }
}

/**
 * The POP3 front door of one worker: accepts connections, gives each its session with what is true
 * for it (greeting, whether passwords may be sent in the clear), and its pump.
 */
import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { Log } from '../base/log.ts'
import { isLoopback, type ListenAddress } from '../base/network.ts'
import type { Settings } from '../base/settings.ts'
import { Pop3Session } from '../protocol/pop3/session.ts'
import { clientOf, Pop3Connection, type Pop3ConnectionContext } from './connection.ts'
import { Listener } from './listener.ts'

export interface Pop3ServerOptions extends Pop3ConnectionContext {
  log: Log
  addresses: readonly ListenAddress[]
  hostname: string
  plaintextAuth: Settings['POPGRES_PLAINTEXT_AUTH']
  /** Whether a key and some user make APOP work; asked at each greeting. */
  isApopOffered: () => boolean
}

/** A protocol server of a worker, POP3 or LMTP. */
export interface RunningServer {
  /** As bound, in the form of the settings. */
  readonly addresses: readonly string[]
  /** Accepts no more; what is open is told, and destroyed after `graceMs`. */
  stop(graceMs: number): Promise<void>
}

export async function startPop3Server(options: Pop3ServerOptions): Promise<RunningServer> {
  const listener = new Listener((socket) => {
    const session = new Pop3Session({
      hostname: options.hostname,
      apopTimestamp: options.isApopOffered() ? makeTimestamp(options.hostname) : undefined,
      isPlaintextAllowed: isPlaintextAllowed(options.plaintextAuth, socket),
      implementation: 'Popgres',
    })
    return new Pop3Connection(socket, session, options, options.log)
  })
  const addresses = await listener.open(options.addresses)
  return { addresses, stop: (graceMs) => listener.close(graceMs) }
}

/**
 * RFC 1939 §7: different at each greeting, in the form of an RFC 5322 msg-id. Random, because an
 * attacker who foresees it can prepare collisions of MD5.
 */
function makeTimestamp(hostname: string): string {
  return `<${process.pid}.${Date.now()}.${randomBytes(12).toString('hex')}@${hostname}>`
}

function isPlaintextAllowed(setting: Settings['POPGRES_PLAINTEXT_AUTH'], socket: Socket): boolean {
  if (setting !== 'loopback') return setting === 'always'
  const client = clientOf(socket)
  return client === 'local' || isLoopback(client)
}

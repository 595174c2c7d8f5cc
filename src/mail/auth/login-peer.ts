/**
 * Who is at the other end of a connection, as far as the connection itself knows: what a login is
 * judged by besides the proof that the peer offers.
 */
import { isIP } from 'node:net'

export interface LoginPeer {
  /** Address of the peer, the true one behind a load balancer; `local` for a Unix socket. */
  client: string
  /** TLS ends here, or at a load balancer that says so. */
  isEncrypted: boolean
  /** The domain that the host name of SNI is bound to: bare user names are this domain's. */
  hostDomain: string | undefined
  /** SHA-256 of the DER of the client's certificate, whose key it has proved to hold. */
  certificateDigest: Buffer | undefined
}

/** Whether the peer is still there: what waits for something ends when it is not. */
export class Presence {
  #isGone = false
  #controller: AbortController | undefined

  get isGone(): boolean {
    return this.#isGone
  }

  /** Aborted when it goes. Few logins wait for anything, so it is made when it is asked for. */
  get signal(): AbortSignal {
    this.#controller ??= new AbortController()
    if (this.#isGone) this.#controller.abort()
    return this.#controller.signal
  }

  leave(): void {
    this.#isGone = true
    this.#controller?.abort()
  }
}

/** @returns the peer's address as PostgreSQL's inet reads it; undefined: it has none */
export function addressOf(client: string): string | undefined {
  const address = client.replace(/%.*$/, '')
  return isIP(address) === 0 ? undefined : address
}

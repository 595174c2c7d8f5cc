/**
 * What one session has done so far, in memory: whoever asks later who took a message finds it in
 * session_log, which is written once, with the end of the lease. Fetching writes nothing, and a
 * session that fetched nothing leaves nothing but its deletes.
 */
import type { SessionRecord } from '../../storage/leases.ts'
import { UidRanges } from './uid-ranges.ts'

/** Who has opened the maildrop, and how. */
export interface SessionPeer {
  /** address of the peer, for operators */
  client: string
  /** its version; `balancer`: it ended there; undefined: none */
  tls?: string | undefined
  /** how it logged in: `password`, `apop`, `scram`, `bearer`, `external` */
  mechanism?: string | undefined
  /** the app password or certificate that it logged in with, if it was one */
  credentialId: string | undefined
}

export class SessionNotes {
  readonly #beganAt = performance.now()
  #peer: SessionPeer | undefined
  #fetched: UidRanges | undefined
  #octets = 0

  /** Whether there is something to be told of it even if it deletes nothing. */
  get hasFetched(): boolean {
    return this.#fetched !== undefined
  }

  begin(peer: SessionPeer): void {
    this.#peer = peer
  }

  /** A message was sent whole. */
  fetch(uid: number, octets: number): void {
    this.#fetched ??= new UidRanges()
    this.#fetched.add(uid)
    this.#octets += octets
  }

  toRecord(): SessionRecord {
    const { client, tls, mechanism, credentialId } = this.#peer ?? {}
    return {
      seconds: (performance.now() - this.#beganAt) / 1_000,
      client,
      tls,
      mechanism,
      credentialId,
      fetched: this.#fetched?.count ?? 0,
      octets: this.#octets,
      fetchedUids: this.#fetched?.toText(),
    }
  }
}

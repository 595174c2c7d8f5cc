/**
 * The keys of session tickets (RFC 5077; in TLS 1.3 RFC 8446 §4.6.1): 48 octets that all workers
 * and nodes with the same POPGRES_SECRET_KEY derive alike, so that a client resumes on whichever it
 * meets, without anything being exchanged.
 *
 * A key lives for a period of 12 hours. Node takes one key at a time, so at the end of a period all
 * tickets are void and each client does one whole handshake; so it does while two nodes' clocks
 * disagree about the period. In TLS 1.2 whoever has the key of a ticket can read what was recorded
 * of its sessions: there, forward secrecy is as good as POPGRES_SECRET_KEY is kept.
 */
import type { Keyring } from '../../base/keyring.ts'

const PERIOD_MS = 43_200_000
const TICKET_KEYS_OCTETS = 48

/** @param now milliseconds since 1970 */
export function deriveTicketKeys(keyring: Keyring, now: number): Buffer {
  return keyring.derive(`tls tickets ${Math.floor(now / PERIOD_MS)}`, TICKET_KEYS_OCTETS)
}

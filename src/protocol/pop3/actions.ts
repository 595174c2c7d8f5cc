/**
 * What the POP3 session asks of its owner, and what it is answered. Only `send` and `close` owe no
 * outcome. Message bytes never pass through here: `retrieve` names the message and the header line,
 * the owner streams storage → socket and reports the end.
 */
import type { Secret } from '../../base/secret.ts'

/** What a peer offered as proof of identity. `name` is as typed, decoded from UTF-8. */
export type LoginAttempt =
  | { mechanism: 'password'; name: string; password: Secret }
  | { mechanism: 'apop'; name: string; timestamp: string; digest: string }

export type Pop3Action =
  | { kind: 'send'; bytes: Buffer }
  /** Verify, take the lease. Outcome: `opened` or `login-refused`. */
  | { kind: 'login'; attempt: LoginAttempt }
  /**
   * Freeze the list of messages (lazily: a poll with STAT alone never asks). Outcome: `listed` or
   * `unavailable`.
   */
  | { kind: 'list' }
  /** The imported unique-ids among the listed messages. Outcome: `unique-ids` or `unavailable`. */
  | { kind: 'unique-ids' }
  /**
   * RETR or TOP: write `header`, then the message dot-stuffed (RETR: whole; TOP: header fields,
   * blank line and `bodyLines` lines), then CRLF "." CRLF. Nothing may be written before the first
   * octets of the message are in hand. Outcome: `retrieved`, or `unavailable` if nothing was
   * written. A fault after the header went out has no outcome: the owner destroys the connection.
   */
  | { kind: 'retrieve'; uid: number; octets: number; header: Buffer; bodyLines: number | undefined }
  /**
   * QUIT in TRANSACTION: delete `uids` (may be none), release the lease. Outcome: `committed`,
   * `commit-failed` or `commit-undecided`.
   */
  | { kind: 'commit'; uids: Int32Array }
  /** Flush what was sent, then close. The last action. */
  | {
      kind: 'close'
      reason:
        | 'quit'
        | 'idle'
        | 'drain'
        | 'lease-lost'
        | 'too-many-errors'
        | 'login-failures'
        | 'http'
    }

/** However they are kept: those that are not the derived ones, by uid. */
export type UniqueIds = Pick<ReadonlyMap<number, string>, 'get'>

/** Why a login was refused; the session words the reply (RFC 2449 §8, RFC 3206). */
export type LoginRefusal =
  | 'bad-credentials' // unknown user or wrong password: [AUTH], one wording, one time
  | 'suspended' // right password, but user or domain is suspended: [SYS/PERM]
  | 'in-use' // the maildrop has another session: [IN-USE]
  | 'temporary' // ours: database away, overload: [SYS/TEMP]

export type Pop3Outcome =
  | {
      kind: 'opened'
      displayName: string
      messageCount: number
      octets: number
      uidPrefix: string
      hasUniqueIds: boolean
    }
  | { kind: 'login-refused'; reason: LoginRefusal }
  /** Packed, ascending by uid: index i of both arrays is message number i + 1. */
  | { kind: 'listed'; uids: Int32Array; octets: Int32Array }
  /** uid → unique-id, for those messages that do not have the derived one. */
  | { kind: 'unique-ids'; uniqueIds: UniqueIds }
  | { kind: 'retrieved' }
  | { kind: 'unavailable'; reason: 'gone' | 'temporary' | 'damaged' }
  | { kind: 'committed' }
  /** `nothing-deleted`: known that nothing was deleted; `lease-lost`: fenced, nothing deleted. */
  | { kind: 'commit-failed'; reason: 'nothing-deleted' | 'lease-lost' }
  /** The fate of QUIT could not be found out: close without a reply. */
  | { kind: 'commit-undecided' }

/** What the session must be told at birth; nothing in it changes. */
export interface Pop3Parameters {
  /** POPGRES_HOSTNAME, used in the greeting and at QUIT. */
  hostname: string
  /** RFC 1939 §7 timestamp `<…@…>`, or undefined where APOP cannot work. */
  apopTimestamp: string | undefined
  /** Whether USER/PASS may be used on this connection (POPGRES_PLAINTEXT_AUTH, peer, TLS). */
  isPlaintextAllowed: boolean
  /** For CAPA's IMPLEMENTATION, e.g. `Popgres`. */
  implementation: string
}

/**
 * What the POP3 session asks of its owner, and what it is answered. Only `send` and `close` owe no
 * outcome. Message bytes never pass through here: `retrieve` names the message and the header line,
 * the owner streams storage → socket and reports the end.
 */
import type { Secret } from '../../base/secret.ts'

/**
 * What a peer offered as proof of identity. `name` is as typed, decoded from UTF-8. What else is
 * proof (a client certificate) the owner knows of the connection.
 */
export type LoginAttempt =
  /** USER and PASS, or SASL PLAIN or LOGIN. */
  | { mechanism: 'password'; name: string; password: Secret }
  | { mechanism: 'apop'; name: string; timestamp: string; digest: string }
  /** SCRAM-SHA-256 or SCRAM-SHA-256-PLUS, channel binding and nonce already checked. */
  | { mechanism: 'scram'; name: string; authMessage: string; clientProof: Buffer }
  /** OAUTHBEARER or XOAUTH2. `name` may be empty in OAUTHBEARER: then the token alone says who. */
  | { mechanism: 'bearer'; name: string; token: Secret }
  /** EXTERNAL: whoever the client certificate belongs to; `name` empty, or one of several. */
  | { mechanism: 'external'; name: string }

/** SASL mechanisms by their registered names, in the order in which they are listed. */
export const SASL_MECHANISMS = [
  'SCRAM-SHA-256-PLUS',
  'SCRAM-SHA-256',
  'EXTERNAL',
  'OAUTHBEARER',
  'XOAUTH2',
  'PLAIN',
  'LOGIN',
] as const
export type SaslMechanismName = (typeof SASL_MECHANISMS)[number]

export type Pop3Action =
  | { kind: 'send'; bytes: Buffer }
  /** Verify, take the lease. Outcome: `opened` or `login-refused`. */
  | { kind: 'login'; attempt: LoginAttempt }
  /**
   * RFC 5802 §5.1: what the server-first-message needs. An unknown user gets a stable invented
   * salt. Outcome: `scram-salt` or `login-refused` (temporary, throttled).
   */
  | { kind: 'scram-salt'; name: string }
  /**
   * RFC 2595 §4: everything that was said before this is sent; then TLS, as the server. Outcome:
   * `secured`; a handshake that fails has none, the owner destroys the connection.
   */
  | { kind: 'start-tls' }
  /**
   * Freeze the list of messages (lazily: a poll with STAT alone never asks). Outcome: `listed` or
   * `unavailable`.
   */
  | { kind: 'list' }
  /**
   * The imported unique-ids of the listed messages from `firstUid` to `lastUid`: of one, or of a
   * page of a listing. Outcome: `unique-ids` or `unavailable`.
   */
  | { kind: 'unique-ids'; firstUid: number; lastUid: number }
  /**
   * RETR or TOP: write `header`, then the message dot-stuffed (RETR: whole; TOP: header fields,
   * blank line and `bodyLines` lines), then CRLF "." CRLF. Nothing may be written before the first
   * octets of the message are in hand. Outcome: `retrieved`, or `unavailable` if nothing was
   * written. A fault after the header went out has no outcome: the owner destroys the connection.
   */
  | {
      kind: 'retrieve'
      uid: number
      octets: number
      header: Buffer
      bodyLines: number | undefined
      /** RFC 6856 §2: the peer did not send UTF8, and header fields beyond ASCII are refused. */
      isAsciiOnly: boolean
    }
  /**
   * QUIT in TRANSACTION: delete `uids` (may be none), release the lease. Outcome: `committed`,
   * `commit-failed` or `commit-undecided`.
   */
  | { kind: 'commit'; uids: Int32Array }
  /** Flush what was sent, then close; `cut-short`: cut the connection at once. The last action. */
  | {
      kind: 'close'
      reason:
        | 'quit'
        | 'idle'
        | 'drain'
        | 'lease-lost'
        | 'too-many-errors'
        | 'login-failures'
        /** SCRAM: the login succeeded, and the peer did not want it. */
        | 'login-cancelled'
        /** A long reply has no end: nothing may look like one. */
        | 'cut-short'
        | 'http'
    }

/** Those that are not the derived ones, ascending by uid: index i of both is one message. */
export interface ImportedIds {
  uids: Int32Array
  uniqueIds: readonly string[]
}

/** Why a login was refused; the session words the reply (RFC 2449 §8, RFC 3206). */
export type LoginRefusal =
  | 'bad-credentials' // unknown user or wrong password: [AUTH], one wording, one time
  | 'needs-password' // the same, of a proof that users who have not moved here yet cannot have
  | 'suspended' // right password, but user or domain is suspended: [SYS/PERM]
  | 'in-use' // the maildrop has another session: [IN-USE]
  | 'login-delay' // too soon after the last login, RFC 2449 §8.1.1: [LOGIN-DELAY]
  | 'throttled' // too many failed logins from there or for that user: [SYS/TEMP]
  | 'too-many-sessions' // the domain or the user has as many as it may: [SYS/TEMP]
  | 'being-moved' // right password, but the mail is still on its way here: [SYS/TEMP]
  | 'temporary' // ours: database away, overload: [SYS/TEMP]

export type Pop3Outcome =
  | {
      kind: 'opened'
      displayName: string
      messageCount: number
      octets: number
      uidPrefix: string
      hasUniqueIds: boolean
      /** What CAPA says from now on: this user's. */
      policy: MaildropPolicy
      /** SCRAM only, RFC 5802 §3: ServerSignature. */
      serverSignature: Buffer | undefined
    }
  | { kind: 'login-refused'; reason: LoginRefusal }
  | { kind: 'scram-salt'; salt: Buffer; iterations: number; nonce: string }
  /** The connection is encrypted; what is true of it now. */
  | { kind: 'secured'; parameters: Pop3Parameters }
  /** Packed, ascending by uid: index i of both arrays is message number i + 1. */
  | { kind: 'listed'; uids: Int32Array; octets: Int32Array }
  | ({ kind: 'unique-ids' } & ImportedIds)
  | { kind: 'retrieved' }
  | { kind: 'unavailable'; reason: 'gone' | 'temporary' | 'damaged' | 'needs-utf8' }
  | { kind: 'committed' }
  /** `nothing-deleted`: known that nothing was deleted; `lease-lost`: fenced, nothing deleted. */
  | { kind: 'commit-failed'; reason: 'nothing-deleted' | 'lease-lost' }
  /** The fate of QUIT could not be found out: close without a reply. */
  | { kind: 'commit-undecided' }

/** What CAPA tells of LOGIN-DELAY and EXPIRE, RFC 2449 §6.5 and §6.7. */
export interface MaildropPolicy {
  /** Seconds between logins; 0: no delay, and CAPA is silent. */
  loginDelaySeconds: number
  /** Days after which a message may be deleted; undefined: NEVER. */
  expireDays: number | undefined
}

/** What is true of the connection. Told at birth, and anew when TLS has begun. */
export interface Pop3Parameters {
  /** POPGRES_HOSTNAME, used in the greeting and at QUIT. */
  hostname: string
  /** RFC 1939 §7 timestamp `<…@…>`, or undefined where APOP cannot work. */
  apopTimestamp: string | undefined
  /** Whether passwords may be sent as they are (USER, PLAIN, LOGIN): TLS, or the setting. */
  isPlaintextAllowed: boolean
  /** Whether STLS would succeed: there is a certificate and no TLS yet. */
  isTlsOffered: boolean
  /** Those that can succeed on this connection. */
  saslMechanisms: readonly SaslMechanismName[]
  /** RFC 9266: what TLS 1.3 exports, 32 octets; undefined: no channel binding. */
  channelBinding: Buffer | undefined
  /** Before login: the largest delay and the shortest expiry of any user here. */
  policy: MaildropPolicy
  /** Whether some user's policy differs from the others' (CAPA adds USER before login). */
  isPolicyByUser: boolean
  /** POPGRES_UTF8_MESSAGES=refuse: header fields beyond ASCII only to who sent UTF8. */
  isUtf8Asked: boolean
  /** For CAPA's IMPLEMENTATION, e.g. `Popgres`. */
  implementation: string
}

/**
 * The one catalogue of failures: what the world (database, lease, network, operator) can do to us.
 * A failure is thrown; the peer reads only the generic text of its protocol, the log reads code and
 * cause. A refusal (the peer may not, or mistyped) is a value and never comes here.
 * Codes are AREA_WHAT; `isRetryable` says whether the same request may succeed later, unchanged.
 */
const CATALOGUE = {
  STORAGE_UNAVAILABLE: { isRetryable: true, text: 'the database does not answer' },
  STORAGE_LOGIN_REFUSED: { isRetryable: true, text: 'the database refused the login' },
  STORAGE_CONFLICT: { isRetryable: true, text: 'the row is locked or was changed by another' },
  STORAGE_IN_DOUBT: { isRetryable: true, text: 'the connection broke before the answer came' },
  STORAGE_REFUSED: { isRetryable: false, text: 'the database refused the statement' },
  SCHEMA_TOO_NEW: { isRetryable: false, text: 'the database needs a newer node' },
  SCHEMA_TOO_OLD: { isRetryable: false, text: 'the database has not been migrated' },
  LEASE_LOST: { isRetryable: true, text: 'the lease on the maildrop is no longer ours' },
  MESSAGE_GONE: { isRetryable: false, text: 'the message is no longer in the maildrop' },
  MESSAGE_DAMAGED: { isRetryable: false, text: 'the stored message is not complete' },
  MESSAGE_TOO_LARGE: { isRetryable: false, text: 'the message is larger than allowed' },
  AUTH_OVERLOADED: { isRetryable: true, text: 'too many logins are waiting to be verified' },
  AUTH_PROVIDER_AWAY: { isRetryable: true, text: 'the OAuth provider does not answer' },
  OLD_SERVER_AWAY: { isRetryable: true, text: 'the old POP3 server does not answer' },
  TLS_CERTIFICATE: { isRetryable: false, text: 'the certificate cannot be used' },
  TLS_HANDSHAKE: { isRetryable: true, text: 'the TLS handshake did not succeed' },
  TLS_OVERLOADED: { isRetryable: true, text: 'too many TLS handshakes are unfinished' },
  OPERATION_REFUSED: { isRetryable: false, text: 'the request cannot be carried out' },
  SETTINGS_INVALID: { isRetryable: false, text: 'a setting is wrong' },
  EMBEDDED_POSTGRES: { isRetryable: false, text: 'the embedded PostgreSQL cannot run' },
} as const

export type FailureCode = keyof typeof CATALOGUE
export const FAILURE_CODES = Object.keys(CATALOGUE) as FailureCode[]

/** Something in the world went wrong. `message` is for the operator, never for a peer. */
export class Failure extends Error {
  readonly code: FailureCode
  readonly isRetryable: boolean

  constructor(code: FailureCode, detail?: string, cause?: unknown) {
    super(detail ?? CATALOGUE[code].text, cause === undefined ? undefined : { cause })
    this.name = 'Failure'
    this.code = code
    this.isRetryable = CATALOGUE[code].isRetryable
  }
}

/** True for a Failure of that code; anything else thrown is not. */
export function isFailure(error: unknown, code: FailureCode): error is Failure {
  return error instanceof Failure && error.code === code
}

/** An unknown error counts as temporary: a client that retries loses nothing, one told "no" may. */
export function isTemporary(error: unknown): boolean {
  return !(error instanceof Failure) || error.isRetryable
}

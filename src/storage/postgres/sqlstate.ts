/**
 * What a failed statement means for the caller: came nothing of it (STORAGE_UNAVAILABLE,
 * STORAGE_LOGIN_REFUSED, STORAGE_CONFLICT), will it never work (STORAGE_REFUSED), or does nobody
 * know (STORAGE_IN_DOUBT)?
 * Causes keep SQLSTATE and constraint; never the row's values (pg's `detail`), never the URL.
 */
import { DatabaseError } from 'pg'
import { Failure } from '../../base/failure.ts'

// Citus passes a server's message on, but no constraint; the shard's number is part of the name.
const CONSTRAINT_OF_SHARD = /constraint "(\w+?)(?:_\d{6,})?"/

/** The cause of a Failure that PostgreSQL itself answered. */
class SqlError extends Error {
  readonly sqlState: string
  readonly constraint: string | undefined
  /** what it was at, as PostgreSQL's CONTEXT; names a table and no values */
  readonly context: string | undefined

  constructor({ message, code = '', constraint, where }: DatabaseError) {
    super(message)
    this.name = 'SqlError'
    this.sqlState = code
    this.constraint = constraint ?? CONSTRAINT_OF_SHARD.exec(message)?.[1]
    this.context = where
  }
}

/** `connecting`: nothing has been sent yet; `sent`: PostgreSQL may have carried it out. */
export type Phase = 'connecting' | 'sent'

// The transaction was rolled back and the same statement may succeed a moment later.
const CONFLICTS = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
  '55P03', // lock_not_available: lock_timeout
  '57014', // query_canceled
])

// Rolled back, and nothing is wrong with the statement or its values: the server cannot now.
const UNAVAILABLE = new Set([
  '25006', // read_only_sql_transaction: we are on a standby
  '26000', // invalid_sql_statement_name: a pooler lost our prepared statement
  '42P01', // undefined_table, and two like it: not migrated, or just being migrated
  '42703',
  '42883',
])
const UNAVAILABLE_CLASSES = new Set(['53', '58', 'XX']) // resources, I/O, internal

// PostgreSQL is there, but not for this user, password or database name.
const LOGIN_REFUSALS = new Set([
  '28000', // invalid_authorization_specification: no such role, or pg_hba.conf has no line for it
  '28P01', // invalid_password
  '3D000', // invalid_catalog_name: no such database
])
// PgBouncer has one SQLSTATE for whatever it says itself.
const POOLER_STATE = '08P01'
const POOLER_REFUSALS = /^no such (user|database)|authentication failed/
// What pg says where PostgreSQL asks for a password and it has been given none.
const NO_PASSWORD = /client password must be a/

// pg rejects with these before it writes anything.
const NOT_SENT = /is not queryable|after calling end on the pool/

/** @returns the failure to throw; a Failure is returned as it is */
export function toFailure(error: unknown, phase: Phase): Failure {
  if (error instanceof Failure) return error
  if (error instanceof DatabaseError && error.code !== undefined) {
    const cause = new SqlError(error)
    if (phase === 'connecting') return notConnected(cause)
    // Recovery may yet find that the commit was written.
    return error.severity === 'PANIC' ? inDoubt(cause) : answered(cause)
  }
  // Never the error itself: pg-pool hangs its client, and so the password, on some of them.
  const cause = withoutFields(error)
  if (phase === 'connecting' || NOT_SENT.test(cause.message)) return notConnected(cause)
  return inDoubt(cause)
}

/** The SQLSTATE that PostgreSQL answered, if the failure came from its answer. */
export function sqlStateOf(error: unknown): string | undefined {
  const cause = error instanceof Failure ? error.cause : undefined
  return cause instanceof SqlError ? cause.sqlState : undefined
}

/**
 * Whether a table was locked for longer than the statement waits: somebody changes it (a migration,
 * vacuum at its end). Of a row that is locked PostgreSQL says where it lies.
 */
export function isTableLocked(error: unknown): boolean {
  const cause = error instanceof Failure ? error.cause : undefined
  return cause instanceof SqlError && cause.sqlState === '55P03' && cause.context === undefined
}

/**
 * Whether the server that we are connected to told us that one behind it is away, which holds some
 * of the domains (citus.ts). What came of the statement there is in doubt; our connection stands.
 */
export function isHolderAway(error: unknown): boolean {
  const sqlState = sqlStateOf(error)
  const isTold = sqlState?.startsWith('08') === true || sqlState === '57P03'
  return isTold && error instanceof Failure && error.code === 'STORAGE_IN_DOUBT'
}

/** The constraint that refused the statement, if one did. */
export function constraintOf(error: unknown): string | undefined {
  const cause = error instanceof Failure ? error.cause : undefined
  return cause instanceof SqlError ? cause.constraint : undefined
}

function inDoubt(cause: Error): Failure {
  return new Failure('STORAGE_IN_DOUBT', `the connection broke: ${cause.message}`, cause)
}

function isLoginRefusal({ sqlState, message }: SqlError): boolean {
  if (sqlState === POOLER_STATE) return POOLER_REFUSALS.test(message)
  return LOGIN_REFUSALS.has(sqlState)
}

function notConnected(cause: Error): Failure {
  const isRefused = cause instanceof SqlError && isLoginRefusal(cause)
  if (isRefused || NO_PASSWORD.test(cause.message)) {
    const why = isRefused ? cause.message : 'DATABASE_URL has no password'
    return new Failure('STORAGE_LOGIN_REFUSED', `the database refused the login: ${why}`, cause)
  }
  return new Failure('STORAGE_UNAVAILABLE', `the database does not answer: ${cause.message}`, cause)
}

function answered(cause: SqlError): Failure {
  const { sqlState, message } = cause
  const stateClass = sqlState.slice(0, 2)
  if (CONFLICTS.has(sqlState)) return new Failure('STORAGE_CONFLICT', message, cause)
  // 57P01 and its like end the connection: usually rolled back, but not surely.
  if (stateClass === '08' || sqlState.startsWith('57P')) return inDoubt(cause)
  const isCachedPlan = sqlState === '0A000' && message.includes('cached plan')
  if (UNAVAILABLE.has(sqlState) || UNAVAILABLE_CLASSES.has(stateClass) || isCachedPlan)
    return new Failure('STORAGE_UNAVAILABLE', `the database cannot: ${message}`, cause)
  // Who manages with the URL of a node is told so.
  const cure = sqlState === '42501' ? ': DATABASE_URL must name the owner of the tables here' : ''
  const refusal = `the database refused: ${message} (${sqlState})${cure}`
  return new Failure('STORAGE_REFUSED', refusal, cause)
}

function withoutFields(error: unknown): Error {
  if (error instanceof AggregateError)
    return new Error(error.errors.map((one) => withoutFields(one).message).join('; '))
  return new Error(error instanceof Error ? error.message : String(error))
}

/**
 * What an operator asked for and cannot have, as one line that says what to do: thrown as
 * Failure OPERATION_REFUSED, so the CLI prints it and an HTTP API can answer with it.
 * The database's constraints have the last word; this is the one table that puts them into words.
 */
import { Failure, isFailure } from '../base/failure.ts'
import { constraintOf } from '../storage/sqlstate.ts'

const CONSTRAINTS: Readonly<Record<string, string>> = {
  domains_name_key: 'this domain exists already',
  domains_name_is_lower_case_host_name: 'a domain name is written like example.com',
  domains_trash_days_is_0_to_3650: 'trash days go from 0 to 3650',
  users_address_key: 'a user with this address exists already (case does not matter)',
  users_local_part_is_dot_atom:
    "before the @ go at most 64 letters, digits, single dots and !#$%&'*+/=?^_`{|}~-",
  users_password_hash_is_argon2id_or_bcrypt:
    'the hash is neither argon2id ($argon2id$v=19$…) nor bcrypt ($2a$…, $2b$…, $2y$…)',
  users_quota_octets_not_negative: 'a quota is 0 or more octets',
  users_domain_id_fkey: 'the domain was removed meanwhile',
}

export function refused(line: string, cause?: unknown): Failure {
  return new Failure('OPERATION_REFUSED', line, cause)
}

export function isRefusal(error: unknown): error is Failure {
  return isFailure(error, 'OPERATION_REFUSED')
}

/**
 * Runs `statement`; a violated constraint becomes a refusal.
 * @throws {Failure} OPERATION_REFUSED, or the storage's failure as it came
 */
export async function refusing<T>(statement: () => Promise<T>): Promise<T> {
  try {
    return await statement()
  } catch (error) {
    const line = CONSTRAINTS[constraintOf(error) ?? '']
    throw line === undefined ? error : refused(line, error)
  }
}

/** Names of the constraints that are put into words, for a test against the schema. */
export function wordedConstraints(): string[] {
  return Object.keys(CONSTRAINTS)
}

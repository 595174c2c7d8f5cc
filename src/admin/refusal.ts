/**
 * What an operator asked for and cannot have, as one line that says what to do: thrown as
 * Failure OPERATION_REFUSED, so the CLI prints it and an HTTP API can answer with it.
 * The database's constraints have the last word; this is the one table that puts them into words.
 */
import { Failure, isFailure } from '../base/failure.ts'
import { constraintOf, sqlStateOf } from '../storage/postgres/sqlstate.ts'

const CONSTRAINTS: Readonly<Record<string, string>> = {
  domains_name_key: 'this domain exists already',
  domains_name_is_lower_case_host_name: 'a domain name is written like example.com',
  domains_expire_is_1_to_36500_days: 'messages expire after 1 to 36500 days, or never',
  domains_login_delay_is_0_to_86400_seconds: 'a login delay is 0 to 86400 seconds',
  domains_second_login_is_known: 'a second login is refuse, wait or take-over',
  domains_trash_days_is_0_to_3650: 'trash days go from 0 to 3650',
  credentials_name_is_1_to_64_printable: 'a name has 1 to 64 printable characters',
  credentials_name_key: 'the user has a credential of this name already',
  users_address_key: 'a user with this address exists already (case does not matter)',
  users_expire_is_0_to_36500_days: 'messages expire after 1 to 36500 days, or never',
  users_local_part_is_dot_atom:
    "before the @ go at most 64 letters, digits, single dots and !#$%&'*+/=?^_`{|}~-",
  users_login_delay_is_0_to_86400_seconds: 'a login delay is 0 to 86400 seconds',
  users_password_hash_is_of_a_known_scheme:
    'the hash is neither of crypt(3) or argon2 ($6$…, $argon2id$…) nor of a {SCHEME}',
  users_quota_octets_not_negative: 'a quota is 0 or more octets',
  held_users_domain_id_user_id_fkey: 'a legal hold is on: see "popgres hold list"',
  legal_holds_domain_id_fkey: 'a legal hold is on: see "popgres hold list"',
  legal_holds_domain_key: 'the domain is under a legal hold already: see "popgres hold list"',
  legal_holds_reason_is_1_to_500_characters: 'a reason is one line of 1 to 500 characters',
  legal_holds_user_key: 'the user is under a legal hold already: see "popgres hold list"',
  domain_hosts_host_name_key: 'this host name belongs to a domain already: see "popgres host list"',
  domain_hosts_pkey: 'this host name belongs to the domain already',
  domains_alias_of_is_no_alias:
    'a domain that another one stands for has to stay as it is: see "popgres domain alias list"',
  domains_over_quota_is_known: 'over quota is defer or refuse',
  domains_separator_is_one_sign: 'a separator is one of + - = _ # ~ %',
  aliases_target_key: 'the alias stands for this user already',
  aliases_local_part_is_lower_case_dot_atom:
    "before the @ go at most 64 letters, digits, single dots and !#$%&'*+/=?^_`{|}~-",
  domain_quotas_not_negative: 'a quota is 0 or more octets or messages',
  users_quota_messages_not_negative: 'a quota is 0 or more messages',
  domain_hosts_domain_id_fkey: 'the domain was removed meanwhile',
  certificates_chain_is_pem: 'the certificate file is larger than 65536 octets',
  old_servers_domain_id_fkey: 'the domain was removed meanwhile',
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
    const line = CONSTRAINTS[constraintOf(error) ?? ''] ?? lineOf(error)
    throw line === undefined ? error : refused(line, error)
  }
}

/** What a function of ours says where it refuses: in words already. */
const FUNCTION_REFUSALS = new Set(['P0002', '22023', '42710', '42809', '54000'])

function lineOf(error: unknown): string | undefined {
  const cause = error instanceof Failure ? error.cause : undefined
  const isWorded = FUNCTION_REFUSALS.has(sqlStateOf(error) ?? '') && cause instanceof Error
  return isWorded ? cause.message : undefined
}

/** Names of the constraints that are put into words, for a test against the schema. */
export function wordedConstraints(): string[] {
  return Object.keys(CONSTRAINTS)
}

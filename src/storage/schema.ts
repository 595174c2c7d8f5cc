/**
 * The tables as Kysely sees them; migrations/ is their documentation. Only ordinary (text) queries
 * use these types: bigint columns arrive as numbers (all stay below 2^53), timestamps as Date.
 */
import type { Generated, GeneratedAlways } from 'kysely'

export interface Tables {
  domains: {
    domain_id: Generated<number>
    name: string
    suspended: Generated<boolean>
    trash_days: Generated<number>
    login_delay_seconds: Generated<number>
    expire_days: number | null
    second_login: Generated<'refuse' | 'wait' | 'take-over'>
    alias_of: number | null
    aliases_allowed: Generated<boolean>
    catch_all_allowed: Generated<boolean>
    separator: string | null
    over_quota: Generated<'defer' | 'refuse'>
    is_alias: GeneratedAlways<boolean>
    alias_of_is_alias: GeneratedAlways<boolean>
    created_at: Generated<Date>
  }
  users: {
    domain_id: number
    user_id: Generated<number>
    local_part: string
    password_hash: string | null
    apop_secret: Buffer | null
    suspended: Generated<boolean>
    quota_octets: number | null
    quota_messages: number | null
    login_delay_seconds: number | null
    expire_days: number | null
    main_password_allowed: Generated<boolean>
    scram_keys: Buffer | null
    created_at: Generated<Date>
  }
  credentials: {
    domain_id: number
    user_id: number
    credential_id: Generated<string>
    kind: 'app-password' | 'certificate'
    name: string
    digest: Buffer
    expires_at: Date | null
    networks: string[] | null
    created_at: Generated<Date>
    last_used_at: Date | null
  }
  aliases: {
    domain_id: number
    local_part: string
    position: number
    target_domain_id: number
    target_user_id: number
    created_at: Generated<Date>
  }
  domain_quotas: {
    domain_id: number
    quota_octets: number | null
    quota_messages: number | null
    octets: number
    message_count: number
  }
  shared_keys: { purpose: string; key: Buffer }
  domain_hosts: { domain_id: number; host_name: string }
  certificates: {
    host_name: string
    chain: string
    private_key: Buffer
    updated_at: Generated<Date>
  }
  oauth_providers: {
    domain_id: number
    issuer: string
    audience: string | null
    jwks_uri: string | null
    introspection_uri: string | null
    client_id: string | null
    client_secret: Buffer | null
    address_claim: Generated<string>
    scope: string | null
  }
  old_servers: {
    domain_id: number
    host: string
    port: number
    security: Generated<'tls' | 'stls' | 'none'>
    authority: string | null
    user_format: Generated<'full' | 'local'>
    makes_users: Generated<boolean>
    connections_max: Generated<number>
    since: Generated<Date>
  }
  throttles: { key: string; failures: number; recent: Buffer[]; updated_at: Date }
  known_networks: { domain_id: number; user_id: number; network: string; seen_at: Date }
  last_logins: { domain_id: number; user_id: number; logged_in_at: Date }
  maildrops: {
    domain_id: number
    user_id: number
    message_count: Generated<number>
    octets: Generated<number>
    next_uid: Generated<number>
    uid_validity: Generated<number>
    has_unique_ids: Generated<boolean>
  }
  bodies: {
    domain_id: number
    body_id: string
    octets: number | null
    created_at: Generated<Date>
  }
  body_chunks: { domain_id: number; body_id: string; seq: number; data: Buffer }
  messages: {
    domain_id: number
    user_id: number
    uid: number
    octets: number
    body_id: string
    prefix: Generated<Buffer>
    unique_id: string | null
    received_at: Generated<Date>
  }
  trash: {
    domain_id: number
    user_id: number
    uid: number
    octets: number
    body_id: string
    prefix: Generated<Buffer>
    unique_id: string | null
    received_at: Date
    session_id: string
    deleted_at: Date
  }
  sessions: {
    domain_id: number
    user_id: number
    session_id: string
    node_id: string
    client: string
    since: Date
    credential_id: string | null
    wanted_at: Date | null
  }
  nodes: {
    node_id: string
    hostname: string
    pid: number
    version: string
    started_at: Generated<Date>
    heartbeat_at: Generated<Date>
  }
  session_log: {
    domain_id: number
    user_id: number
    session_id: string
    ended_at: Date
    deleted: number
    began_at: Date | null
    client: string | null
    tls: string | null
    mechanism: string | null
    credential_id: string | null
    credential_name: string | null
    reason: string | null
    fetched: Generated<number>
    octets: Generated<number>
    /** As text: `{[1,4),[7,8)}`. */
    fetched_uids: string | null
    deleted_uids: string | null
  }
  imported: { domain_id: number; user_id: number; digest: Buffer; copy: number }
  legal_holds: {
    domain_id: number
    hold_id: Generated<string>
    user_id: number | null
    reason: string
    since: Generated<Date>
  }
  held_users: { domain_id: number; user_id: number; hold_id: string }
  leaders: {
    task: string
    holder: string
    hostname: string
    pid: number
    since: Date
    renewed_at: Date
  }
  schema_requirements: { migration: string; lowest_node_version: string }
  /** Kysely's own record of what has been applied. */
  schema_migrations: { name: string; timestamp: string }
}

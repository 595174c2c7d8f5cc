/**
 * Dovecot 2.3 at its best for POP3: nothing but POP3 and LMTP, login processes that serve many
 * connections each and never end (its `high-performance mode`), one POP3 process a core for all
 * sessions (a poll costs 0.6 of what it costs with a process for each, idle sessions a quarter of
 * the memory), LMTP processes that are used again, userdb fields that come with the password
 * (prefetch), no flags kept, sizes from the names of the files, no log of each session. Mail is in
 * Maildirs that have CRLF already: sdbox and mdbox were slower here at polls and at RETR.
 */
import { cpus } from 'node:os'
import { join } from 'node:path'
import type { Certificate } from './certificate.ts'

/** sha512: {SSHA512}, salted, one round; its SHA512-CRYPT has 5,000, for 3 ms more of a poll. */
export type DovecotScheme = 'sha512' | 'argon2id'

export interface DovecotVariant {
  scheme: DovecotScheme
  /** With auth_cache: a second login asks no passdb; the password is hashed again all the same. */
  isCached: boolean
}

export interface DovecotPorts {
  pop3: number
  pop3s: number
  lmtp: number
}

/** Of Debian's own: mail must belong to somebody who is not root. */
export const MAIL_OWNER = 'mail'

const MAX_CONNECTIONS = 8_000

const AUTH_CACHE = `
auth_cache_size = 64 M
auth_cache_ttl = 1 hour
auth_cache_negative_ttl = 0
# Else one process, and so one core, hashes the passwords of all.
auth_cache_verify_password_with_worker = yes
`

function formatServices({ pop3, pop3s, lmtp }: DovecotPorts): string {
  const cores = cpus().length
  return `
service pop3-login {
  inet_listener pop3 {
    address = 127.0.0.1
    port = ${pop3}
  }
  inet_listener pop3s {
    address = 127.0.0.1
    port = ${pop3s}
    ssl = yes
  }
  service_count = 0
  process_min_avail = ${cores}
  process_limit = ${cores}
  client_limit = ${MAX_CONNECTIONS}
  chroot =
}
service pop3 {
  service_count = 0
  client_limit = ${MAX_CONNECTIONS}
  process_min_avail = ${cores}
  process_limit = ${cores}
  idle_kill = 1 hour
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = ${lmtp}
  }
  unix_listener lmtp {
    mode = 0
  }
  service_count = 0
  client_limit = 1
  process_min_avail = 16
  process_limit = 256
  idle_kill = 1 hour
}
service auth {
  client_limit = ${2 * MAX_CONNECTIONS}
}
service auth-worker {
  process_limit = ${cores}
  process_min_avail = ${cores}
  service_count = 0
  idle_kill = 1 hour
}
service anvil {
  client_limit = ${2 * MAX_CONNECTIONS}
}
service stats {
  client_limit = ${2 * MAX_CONNECTIONS}
}
service imap-hibernate {
  unix_listener imap-hibernate {
    mode = 0
  }
}
`
}

/**
 * @param place of this instance: sockets, passwords, log
 * @param mail where all instances find the mail
 */
export function formatConfiguration(
  place: string,
  mail: string,
  certificate: Certificate,
  variant: DovecotVariant,
  ports: DovecotPorts,
): string {
  return `
base_dir = ${join(place, 'run')}
state_dir = ${join(place, 'state')}
instance_name = ${ports.pop3}
log_path = ${join(place, 'log')}
info_log_path = /dev/null
protocols = pop3 lmtp
listen = 127.0.0.1
default_client_limit = ${MAX_CONNECTIONS}
default_process_limit = 1024
default_vsz_limit = 1 G
mail_max_userip_connections = 0
auth_mechanisms = plain
auth_failure_delay = 0
disable_plaintext_auth = no
verbose_proctitle = no
login_log_format_elements =
shutdown_clients = yes

ssl = yes
ssl_cert = <${certificate.certFile}
ssl_key = <${certificate.keyFile}
ssl_min_protocol = TLSv1.2

mail_location = maildir:~/Maildir
mail_uid = ${MAIL_OWNER}
mail_gid = ${MAIL_OWNER}
first_valid_uid = 1
first_valid_gid = 1
mail_privileged_group =
# Durable: message, its directory and the list of UIDs are synced before 250; always would sync
# the indexes too, 6 times a delivery instead of 3, though they can be made again.
mail_fsync = optimized
mail_save_crlf = yes
maildir_very_dirty_syncs = yes
maildir_stat_dirs = no
mailbox_list_index = yes
mailbox_list_index_very_dirty_syncs = yes
lmtp_add_received_header = no
lmtp_save_to_detail_mailbox = no
pop3_no_flag_updates = yes
pop3_fast_size_lookups = yes
pop3_lock_session = no
pop3_uidl_format = %08Xu%08Xv

namespace inbox {
  inbox = yes
}
passdb {
  driver = passwd-file
  args = username_format=%u ${join(place, 'passwords')}
  default_fields = userdb_uid=${MAIL_OWNER} userdb_gid=${MAIL_OWNER} userdb_home=${mail}/%u
}
userdb {
  driver = prefetch
}
userdb {
  driver = static
  args = uid=${MAIL_OWNER} gid=${MAIL_OWNER} home=${mail}/%u allow_all_users=yes
}
${variant.isCached ? AUTH_CACHE : ''}
${formatServices(ports)}`
}

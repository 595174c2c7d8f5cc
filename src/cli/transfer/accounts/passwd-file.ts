/**
 * Dovecot's passwd-file: `user:password:uid:gid:gecos:home:shell:extra fields`, what is at the end
 * may be missing. Of the extra fields count userdb_mail, userdb_home, userdb_quota_rule, nologin.
 */
import { type OldAccount, type OldAccountItem, quotaOfKilobytes } from './old-account.ts'
import { readLines } from './text-lines.ts'

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read */
export async function* readPasswdFile(path: string): AsyncGenerator<OldAccountItem> {
  for (const { text, source } of await readLines(path)) {
    const account = parseLine(text, source)
    yield account ?? { source, refusal: 'is no line of a passwd file (user:password:…)' }
  }
}

function parseLine(line: string, source: string): OldAccount | undefined {
  const [name = '', hash, , , , home = '', , ...extra] = line.split(':')
  if (name === '' || hash === undefined) return undefined
  // Values may hold colons: mail=maildir:/path.
  const fields = new Map(
    extra
      .join(':')
      .split(/\s+/)
      .map((field): [string, string] => {
        const at = field.indexOf('=')
        return at < 0 ? [field, 'y'] : [field.slice(0, at), field.slice(at + 1)]
      }),
  )
  return {
    source,
    name,
    hash: isLocked(hash) ? '' : hash,
    password: '',
    quota: quotaOf(fields.get('userdb_quota_rule') ?? ''),
    home: fields.get('userdb_home') ?? (home || undefined),
    mail: fields.get('userdb_mail'),
    isSuspended: fields.has('nologin'),
  }
}

function isLocked(hash: string): boolean {
  return /^[*!]+$/.test(hash)
}

/** `*:storage=100M`, `*:storage=102400` (kilobytes), `*:bytes=…`. */
function quotaOf(rule: string): string {
  const [, storage, octets] = /(?:storage=(\w+)|bytes=(\d+))/.exec(rule) ?? []
  return octets ?? quotaOfKilobytes(storage ?? '')
}

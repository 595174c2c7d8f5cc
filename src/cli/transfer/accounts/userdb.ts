/**
 * Courier's userdb: `name<TAB>field=value|field=value|…`. Of the fields pop3pw and systempw (the
 * password for POP3, else for all), home, mail and quota count. Its {MD5} and {MD5RAW} are not what
 * others call so.
 */
import type { OldAccountItem } from './old-account.ts'
import { readLines } from './text-lines.ts'

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read */
export async function* readUserdb(path: string): AsyncGenerator<OldAccountItem> {
  for (const { text, source } of await readLines(path)) {
    const tab = text.indexOf('\t')
    if (tab <= 0) yield { source, refusal: 'is no line of a userdb (name, TAB, field=value|…)' }
    else {
      const fields = parseFields(text.slice(tab + 1))
      yield {
        source,
        name: text.slice(0, tab),
        hash: renameScheme(fields.get('pop3pw') ?? fields.get('systempw') ?? ''),
        password: '',
        quota: quotaOf(fields.get('quota') ?? ''),
        home: fields.get('home'),
        mail: fields.get('mail'),
        isSuspended: /disablepop3=1/.test(fields.get('options') ?? ''),
      }
    }
  }
}

function parseFields(text: string): Map<string, string> {
  return new Map(
    text.split('|').map((field): [string, string] => {
      const at = field.indexOf('=')
      return at < 0 ? [field, ''] : [field.slice(0, at).trim(), field.slice(at + 1)]
    }),
  )
}

function renameScheme(hash: string): string {
  return hash.replace(/^\{MD5\}(?!\$)/i, '{LDAP-MD5}').replace(/^\{MD5RAW\}/i, '{PLAIN-MD5.HEX}')
}

/** `10000000S,1000C`: octets and messages. */
function quotaOf(text: string): string {
  const octets = /(?:^|,)(\d+)S/.exec(text)?.[1] ?? ''
  return octets === '0' ? '' : octets
}

/**
 * Where the mail of one user lies, as Dovecot's mail_location says it: `maildir:~/Maildir`,
 * `mbox:~/mail:INBOX=/var/mail/%u`, or a path alone. Variables are %u (the whole name), %n and %d
 * (before and after its @), %h and ~ (the home), each also as %Ld (in lower case), %1n (its first
 * letter), %2.3n (three letters from the third on); and %{column} of a table of users.
 */
import { join } from 'node:path'
import { refused } from '../../admin/refusal.ts'
import type { SourceFormat } from '../formats/sources.ts'

export interface LocationNames {
  user: string
  home: string | undefined
  columns?: Readonly<Record<string, string>>
}

export interface MailLocation {
  files: SourceFormat
  path: string
  /** Where dovecot-uidlist lies. */
  control: string | undefined
}

const VARIABLE = /%(?:%|(?:(\d+)\.)?(\d*)([LU]?)([undh])|\{(\w+)\})/g

/** @throws {Failure} OPERATION_REFUSED if something in it is not known */
export function locateMail(template: string, names: LocationNames): MailLocation {
  const [, kind, rest = ''] = /^(?:(maildir|mbox):)?(.*)$/s.exec(template) ?? []
  const [path = '', ...options] = rest.split(':').map((part) => expand(part, names))
  const option = (name: string) =>
    options.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1)
  return {
    files: (kind as SourceFormat | undefined) ?? 'auto',
    path: option('INBOX') ?? path,
    control: option('CONTROL'),
  }
}

function expand(text: string, { user, home, columns = {} }: LocationNames): string {
  const at = user.lastIndexOf('@')
  const values: Readonly<Record<string, string | undefined>> = {
    u: user,
    n: at < 0 ? user : user.slice(0, at),
    d: at < 0 ? '' : user.slice(at + 1),
    h: home,
  }
  const expanded = text.replace(VARIABLE, (whole: string, ...groups: (string | undefined)[]) => {
    if (whole === '%%') return '%'
    const [offset = '0', width = '', letters = '', key = '', column] = groups
    const value = column === undefined ? values[key] : columns[column]
    if (value === undefined) throw refused(`${whole} of ${text} is not known for ${user}`)
    checkPart(value, key === 'h' || column !== undefined, user)
    return modify(value, Number(offset), width, letters)
  })
  if (!expanded.startsWith('~/')) return expanded
  if (home === undefined) throw refused(`the home of ${user} is not known, for ${text}`)
  return join(home, expanded.slice(2))
}

/** A name must not lead out of where mail lies. */
function checkPart(value: string, isPath: boolean, user: string): void {
  const parts = isPath ? value.split('/') : [value]
  if (parts.includes('..') || (!isPath && value.includes('/')))
    throw refused(`${JSON.stringify(user)} would lead to another directory`)
}

function modify(value: string, offset: number, width: string, letters: string): string {
  const cut = width === '' ? value : value.slice(offset, offset + Number(width))
  if (letters === 'L') return cut.toLowerCase()
  return letters === 'U' ? cut.toUpperCase() : cut
}

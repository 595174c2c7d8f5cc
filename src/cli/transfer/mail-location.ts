/**
 * Where the mail of one user lies, as Dovecot's mail_location says it: `maildir:~/Maildir`,
 * `mbox:~/mail:INBOX=/var/mail/%u`, or a path alone. Variables are %u (the whole name), %n and %d
 * (before and after its @), %h and ~ (the home), each also as %Ld (in lower case), %1n (its first
 * letter), %2.3n (three letters from the third on); and %{column} of a table of users.
 *
 * What the operator has laid out is told from what the user can change: home directories, and what
 * bears a user's name, are the operator's; what is below them is not, nor is the mail itself.
 */
import { dirname, join, normalize } from 'node:path'
import { refused } from '../../admin/refusal.ts'
import type { SourceFormat } from '../formats/sources.ts'

export interface LocationNames {
  user: string
  home: string | undefined
  columns?: Readonly<Record<string, string>>
}

/** A path, and the part of it in which only the operator can have made links. */
export interface LaidOut {
  path: string
  trusted: string
}

export interface MailLocation extends LaidOut {
  files: SourceFormat
  /** Where dovecot-uidlist lies. */
  control: LaidOut | undefined
}

/** Dovecot's other formats. */
const UNREAD = /^(sdbox|mdbox|dbox|imapc|pop3c|cydir):/
const VARIABLE = /%(?:%|(?:(\d+)\.)?(\d*)([LU]?)([undh])|\{(\w+)\})/g

/** @throws {Failure} OPERATION_REFUSED if something in it is not known */
export function locateMail(template: string, names: LocationNames): MailLocation {
  const [, unread] = UNREAD.exec(template) ?? []
  if (unread !== undefined)
    throw refused(
      `${unread} is not read: let Dovecot write a Maildir (doveadm backup -u ${names.user} ` +
        'maildir:/copy/%u), or take it by "popgres import imap"',
    )
  const [, kind, rest = ''] = /^(?:(maildir|mbox):)?(.*)$/s.exec(template) ?? []
  const [path = '', ...options] = rest.split(':')
  const option = (name: string) => {
    const text = options.find((each) => each.startsWith(`${name}=`))?.slice(name.length + 1)
    return text === undefined ? undefined : layOut(text, names)
  }
  return {
    files: (kind as SourceFormat | undefined) ?? 'auto',
    ...(option('INBOX') ?? layOut(path, names)),
    control: option('CONTROL'),
  }
}

function layOut(template: string, names: LocationNames): LaidOut {
  const path = trimEnd(expand(template, names))
  const home = names.home && trimEnd(normalize(names.home))
  if (home && path.startsWith(`${home}/`)) return { path, trusted: home }
  const last = [...template.matchAll(VARIABLE)].at(-1)
  const slash = last === undefined ? -1 : template.indexOf('/', last.index + last[0].length)
  const above = slash < 0 ? path : trimEnd(expand(template.slice(0, slash), names))
  return { path, trusted: path.startsWith(`${above}/`) ? above : dirname(path) }
}

function trimEnd(path: string): string {
  return path.replace(/(?<=.)\/+$/, '')
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

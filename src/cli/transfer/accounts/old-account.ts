/**
 * One account as a list of an old server has it, whatever the list: a passwd file, Courier's
 * userdb, a table. What is read here as text is judged in admin/transfer/move-in.ts.
 */
export interface OldAccount {
  /** File and line. */
  source: string
  /** As it stands there, with or without a domain. */
  name: string
  hash: string
  password: string
  quota: string
  home: string | undefined
  /** Where this user's mail lies, if not where all others' does. */
  mail: string | undefined
  isSuspended: boolean
  columns?: Readonly<Record<string, string>>
}

export type OldAccountItem = OldAccount | { source: string; refusal: string }

/** Kilobytes of Dovecot and others, as text for a quota; what has a unit keeps it. */
export function quotaOfKilobytes(text: string): string {
  if (text === '' || text === '0') return ''
  return /^\d+$/.test(text) ? `${text}K` : text
}

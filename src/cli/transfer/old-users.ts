/**
 * Accounts of an old server's list, and where its mail lies, become users to move: the name gets
 * its domain, the location its variables.
 */
import { join } from 'node:path'
import { describeReadError } from '../../admin/read-error.ts'
import { isRefusal, refused } from '../../admin/refusal.ts'
import type { OldMaildrop, OldUser } from '../../admin/transfer/move-in.ts'
import { readMaildrops, type UidlSource } from '../formats/maildrop.ts'
import { measureSources } from '../formats/sources.ts'
import type { UidlFormat } from '../formats/uidl-format.ts'
import type { OldAccount, OldAccountItem } from './accounts/old-account.ts'
import { locateMail } from './mail-location.ts'

export interface MailPlaces {
  /** Template of all whose account names none; undefined: accounts alone move. */
  mail: string | undefined
  /** Where the old server's "/" is here, if elsewhere. */
  root: string | undefined
  uidl: UidlSource
  format: UidlFormat
  /** Of names without one. */
  domain: string | undefined
}

export async function toOldUsers(
  accounts: AsyncIterable<OldAccountItem>,
  places: MailPlaces,
): Promise<OldUser[]> {
  const users: OldUser[] = []
  for await (const account of accounts)
    users.push('refusal' in account ? account : toOldUser(account, places))
  return users
}

function toOldUser(account: OldAccount, places: MailPlaces): OldUser {
  const { source, name, hash, password, quota, isSuspended } = account
  const address = addressOf(name, places.domain)
  try {
    const maildrop = places.mail === undefined ? undefined : maildropOf(account, places)
    return { source, address, hash, password, quota, isSuspended, maildrop }
  } catch (error) {
    if (!isRefusal(error)) throw error
    return { source, address, refusal: error.message }
  }
}

export function addressOf(name: string, domain: string | undefined): string {
  return name.includes('@') || domain === undefined ? name : `${name}@${domain}`
}

function maildropOf(account: OldAccount, { mail = '', root, uidl, format }: MailPlaces) {
  const { name: user, home, columns = {} } = account
  const own = account.mail !== undefined && /^(?:\w+:|[/~])/.test(account.mail)
  // Courier names a directory below the home.
  const template = own ? (account.mail as string) : account.mail && `~/${account.mail}`
  const location = locateMail(template || mail, { user, home, columns })
  const here = (path: string) => (root === undefined ? path : join(root, path))
  const control = location.control === undefined ? undefined : here(location.control)
  return openMaildrop(here(location.path), { uidl, format, files: location.files, control })
}

function openMaildrop(path: string, options: Parameters<typeof readMaildrops>[1]): OldMaildrop {
  return {
    measure: () =>
      measureSources([path]).catch((error) => {
        const reason = describeReadError(error)
        throw reason === undefined ? error : refused(`${path} cannot be read: ${reason}`, error)
      }),
    messages: () => readMaildrops([path], options),
  }
}

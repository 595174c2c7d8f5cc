/**
 * Accounts of an old server's list, and where its mail lies, become users to move: the name gets
 * its domain, the location its variables.
 */
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isRefusal, refused } from '../../admin/refusal.ts'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import type { OldMaildrop, OldUser } from '../../admin/transfer/move-in.ts'
import { MailPath } from '../formats/mail-path.ts'
import { type MaildropOptions, readMaildrops, type UidlSource } from '../formats/maildrop.ts'
import { measureSources } from '../formats/sources.ts'
import type { UidlFormat } from '../formats/uidl-format.ts'
import type { OldAccount, OldAccountItem } from './accounts/old-account.ts'
import { type LaidOut, locateMail } from './mail-location.ts'

export interface MailPlaces {
  accountsOnly: boolean
  /** Template of all whose account names none. */
  mail: string | undefined
  /** Where the old server's "/" is here, if elsewhere. */
  root: string | undefined
  /** Links on the way to the mail are the operator's, the last name included. */
  followsLinks: boolean
  /** Whose mail is nowhere has none yet, even if all that is around it is missing too. */
  emptyIfMissing: boolean
  uidl: UidlSource
  format: UidlFormat
  /** Of names without one. */
  domain: string | undefined
}

/** @throws {Failure} OPERATION_REFUSED if nothing says where mail is, nor that none shall move */
export async function toOldUsers(
  accounts: AsyncIterable<OldAccountItem>,
  places: MailPlaces,
): Promise<OldUser[]> {
  const users: OldUser[] = []
  let hasPlace = false
  for await (const account of accounts) {
    hasPlace ||= !('refusal' in account) && hasMail(account, places)
    users.push('refusal' in account ? account : toOldUser(account, places))
  }
  if (!hasPlace && !places.accountsOnly && users.length > 0)
    throw refused(
      'where is the mail? name it with --mail or in a column mail; --accounts-only takes none',
    )
  return users
}

function hasMail(account: OldAccount, { mail }: MailPlaces): boolean {
  return mail !== undefined || account.mail !== undefined
}

function toOldUser(account: OldAccount, places: MailPlaces): OldUser {
  const { source, name, hash, password, quota, isSuspended } = account
  const address = addressOf(name, places.domain)
  try {
    const maildrop = places.accountsOnly ? undefined : maildropOf(account, places)
    return { source, address, hash, password, quota, isSuspended, maildrop }
  } catch (error) {
    if (!isRefusal(error)) throw error
    return { source, address, refusal: error.message }
  }
}

export function addressOf(name: string, domain: string | undefined): string {
  return name.includes('@') || domain === undefined ? name : `${name}@${domain}`
}

function maildropOf(account: OldAccount, places: MailPlaces): OldMaildrop {
  const { mail = '', root, followsLinks, uidl, format, emptyIfMissing } = places
  const { name: user, home, columns = {} } = account
  if (!hasMail(account, places))
    throw refused('has no mail in the list: say with --mail where that of the others is')
  const own = account.mail !== undefined && /^(?:\w+:|[/~])/.test(account.mail)
  // Courier names a directory below the home.
  const template = own ? (account.mail as string) : account.mail && `~/${account.mail}`
  const location = locateMail(template || mail, { user, home, columns })
  const here = ({ path, trusted }: LaidOut) => {
    const [whole, above] = [path, trusted].map((each) => (root ? join(root, each) : each))
    return MailPath.of(whole ?? path, followsLinks ? whole : above)
  }
  const control = location.control && here(location.control)
  const options = { uidl, format, files: location.files, control }
  const path = here(location)
  return {
    measure: () => measureSources([path]),
    messages: () => readWhole(path, options, emptyIfMissing),
  }
}

/** @throws {Failure} OPERATION_REFUSED if it cannot be read: it is not known to be empty */
async function* readWhole(
  path: MailPath,
  options: MaildropOptions,
  emptyIfMissing: boolean,
): AsyncGenerator<ImportItem> {
  if (await isMissing(path)) {
    if (emptyIfMissing || (await hasOthersBeside(path.text))) return
    throw refused(
      `there is no ${path.text}, and nothing else in ${dirname(path.text)}: is it mounted? ` +
        'If there is no mail yet, see --empty-if-missing',
    )
  }
  for await (const item of readMaildrops([path], options)) {
    if ('refusal' in item && item.unread === 'source')
      throw refused(`${item.source}: ${item.refusal}`)
    yield item
  }
}

async function isMissing(path: MailPath): Promise<boolean> {
  return await path.stat().then(
    () => false,
    (error) => error.code === 'ENOENT',
  )
}

/** A Maildir is made when the first mail comes; a disk that is not mounted is empty. */
async function hasOthersBeside(path: string): Promise<boolean> {
  const names = await readdir(dirname(path)).catch(() => [])
  return names.length > 0
}

/**
 * A directory that `popgres export` made, read again: export.json says that it is whole, users.json
 * and domain.json what there is besides mail. All of it becomes what any old server is for
 * admin/transfer/move-in.ts.
 */
import { join } from 'node:path'
import { z } from 'zod'
import { refused } from '../../../admin/refusal.ts'
import type { ImportItem } from '../../../admin/transfer/import-messages.ts'
import type { OldAlias } from '../../../admin/transfer/move-aliases.ts'
import type { OldUser } from '../../../admin/transfer/move-in.ts'
import type { OldServer } from '../move-in-command.ts'
import { fileNameOf } from './export-directory.ts'
import { EXPORT_FORMATS, type ExportFormat, openExported } from './exported-maildrop.ts'
import { readJson } from './read-json.ts'
import { count, octets, readUsersOfExport, type UserOfExport } from './users-json.ts'

const limit = count.nullable()

const closing = z.object({
  whose: z.string(),
  format: z.enum(EXPORT_FORMATS),
  missing: z.array(z.object({ address: z.string(), uid: z.int().nullable(), reason: z.string() })),
})

const domain = z.object({
  name: z.string(),
  isSuspended: z.boolean(),
  quotaOctets: octets,
  quotaMessages: limit,
  policy: z.object({
    loginDelaySeconds: count,
    expireDays: limit,
    secondLogin: z.enum(['refuse', 'wait', 'take-over']),
    trashDays: count,
    areAliasesAllowed: z.boolean(),
    isCatchAllAllowed: z.boolean(),
    separator: z.string().nullable(),
    overQuota: z.enum(['defer', 'refuse']),
  }),
  aliases: z.array(z.object({ address: z.string(), targets: z.array(z.string()) })),
  domainAliases: z.array(z.object({ domain: z.string(), standsFor: z.string() })),
})

type DomainOfExport = z.output<typeof domain>
type Missing = z.output<typeof closing>['missing']

/** @throws {Failure} OPERATION_REFUSED if one of them is no export, or is not whole */
export async function readExports(directories: readonly string[]): Promise<OldServer> {
  const users: OldUser[] = []
  const addresses: OldAlias[] = []
  const domains = new Map<string, OldAlias>()
  const settings = new Map<string, ReturnType<typeof toSettings>>()
  for (const directory of directories) {
    const { whose, format, missing } = await readClosing(directory)
    const file = join(directory, 'users.json')
    for (const [index, found] of (await readUsersOfExport(file)).entries()) {
      const source = `${file} user ${index + 1}`
      if ('problem' in found) users.push({ source, refusal: found.problem })
      else users.push(toOldUser(source, directory, format, found.user, missing))
    }
    if (whose.includes('@')) continue
    const source = join(directory, 'domain.json')
    const found = await readJson(source, domain, 'the domain.json of an export')
    settings.set(found.name, toSettings(found))
    for (const { address, targets } of found.aliases)
      addresses.push(toAlias(source, address, targets))
    for (const { domain: name, standsFor } of found.domainAliases)
      domains.set(name, toAlias(source, name, [standsFor]))
  }
  return { users, aliases: { addresses, domains: [...domains.values()] }, domains: settings }
}

/** Written last, so that it is there only if all else is. */
async function readClosing(directory: string) {
  const file = join(directory, 'export.json')
  try {
    return await readJson(file, closing, 'the export.json of this version: export it again')
  } catch (error) {
    const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException
    if (code !== 'ENOENT') throw error
    throw refused(`${directory} has no export.json: the export was cut, begin it again`, error)
  }
}

function toOldUser(
  source: string,
  directory: string,
  format: ExportFormat,
  user: UserOfExport,
  missing: Missing,
): OldUser {
  const { address, hash, isSuspended, isMainPasswordAllowed, messages } = user
  if (messages === undefined)
    return { source, address, refusal: 'has no number of messages: export it again' }
  const place = join(directory, fileNameOf(address.slice(0, address.lastIndexOf('@'))))
  const lost = missing.filter((each) => each.address === address).map((each) => toItem(place, each))
  return {
    ...{ source, address, isSuspended, isWithoutPassword: hash === null },
    hash: hash ?? undefined,
    settings: {
      isMainPasswordAllowed,
      quotaOctets: user.quotaOctets ?? undefined,
      quotaMessages: user.quotaMessages ?? undefined,
      loginDelaySeconds: user.loginDelaySeconds ?? undefined,
      expireDays: user.expireDays ?? undefined,
      credentials: user.credentials.map(({ digest, expiresAt, networks, ...each }) => ({
        ...each,
        digest: Buffer.from(digest, 'hex'),
        expiresAt: expiresAt === null ? undefined : new Date(expiresAt),
        networks: networks ?? undefined,
      })),
    },
    maildrop: openExported(place, format, messages, lost),
  }
}

function toItem(place: string, { uid, reason }: Missing[number]): ImportItem {
  const source = uid === null ? place : `${place}, message ${uid}`
  return { source, sourceOctets: 0, refusal: `is not in the export: ${reason}` }
}

function toSettings({ isSuspended, quotaOctets, quotaMessages, policy }: DomainOfExport) {
  return {
    ...policy,
    isSuspended,
    expireDays: policy.expireDays ?? undefined,
    separator: policy.separator ?? undefined,
    quotaOctets: quotaOctets ?? undefined,
    quotaMessages: quotaMessages ?? undefined,
  }
}

function toAlias(source: string, name: string, targets: readonly string[]): OldAlias {
  return {
    ...{ source, isOff: false },
    name: name.toLowerCase(),
    targets: targets.map((target) => target.toLowerCase()),
  }
}

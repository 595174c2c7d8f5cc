/**
 * The users.json of an export, read again: for the import of users alone, which takes what an
 * account is made with, and (exported-directory.ts) for that of everything.
 */
import { z } from 'zod'
import type { UserImportRow } from '../../../admin/transfer/user-import.ts'
import { Networks } from '../../../base/network.ts'
import { readJson } from './read-json.ts'

/** An integer of PostgreSQL; what else is wrong with it the table tells. */
export const count = z.int32().min(0)
export const octets = z.int().min(0).nullable()
/** Missing in what earlier versions wrote. */
const limit = count.nullable().default(null)
const network = z.string().refine((text) => new Networks().add(text))

const credential = z.object({
  kind: z.enum(['app-password', 'certificate']),
  name: z.string().max(64),
  digest: z.string().regex(/^[0-9a-f]{64}$/),
  expiresAt: z.iso.datetime().nullable(),
  networks: z.array(network).nullable(),
})

const user = z.object({
  address: z.string(),
  hash: z.string().nullable(),
  quotaOctets: octets,
  quotaMessages: limit,
  isSuspended: z.boolean().default(false),
  isMainPasswordAllowed: z.boolean().default(true),
  loginDelaySeconds: limit,
  expireDays: limit,
  credentials: z.array(credential).max(50).default([]),
  messages: count.optional(),
})

export type UserOfExport = z.output<typeof user>

const PROBLEM = 'is no user of an export: it has no address, hash and quotaOctets, or wrong values'

/** @throws {Failure} OPERATION_REFUSED if it is none */
export async function readUsersOfExport(
  file: string,
): Promise<({ user: UserOfExport } | { problem: string })[]> {
  const users = await readJson(file, z.array(z.unknown()), 'the users.json of an export')
  return users.map((each) => {
    const { success, data } = user.safeParse(each)
    return success ? { user: data } : { problem: PROBLEM }
  })
}

/** @throws {Failure} OPERATION_REFUSED if it is none */
export async function* readUsersJson(file: string): AsyncGenerator<UserImportRow> {
  for (const [index, found] of (await readUsersOfExport(file)).entries()) {
    const line = index + 1
    if ('problem' in found) yield { line, problem: found.problem }
    else {
      const { address, hash, quotaOctets } = found.user
      const { isSuspended, isMainPasswordAllowed, quotaMessages } = found.user
      const { loginDelaySeconds, expireDays } = found.user
      yield {
        ...{ line, address, password: '', hash: hash ?? '', quota: String(quotaOctets ?? '') },
        settings: {
          ...{ isSuspended, isMainPasswordAllowed },
          quotaMessages: quotaMessages ?? undefined,
          loginDelaySeconds: loginDelaySeconds ?? undefined,
          expireDays: expireDays ?? undefined,
        },
      }
    }
  }
}

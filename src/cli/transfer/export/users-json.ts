/**
 * The users.json of an export, read again: address, hash and quota of each, as rows for the import
 * of users. What else stands there (suspension, app passwords) is for the eye.
 */
import { readFile } from 'node:fs/promises'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'
import type { UserImportRow } from '../../../admin/transfer/user-import.ts'

/** @throws {Failure} OPERATION_REFUSED if it is none */
export async function* readUsersJson(file: string): AsyncGenerator<UserImportRow> {
  const users = await readArray(file)
  for (const [index, user] of users.entries()) {
    const line = index + 1
    const { address, hash, quotaOctets } = Object(user) as Record<string, unknown>
    if (typeof address !== 'string' || !isTextOrNull(hash) || !isCountOrNull(quotaOctets))
      yield { line, problem: 'is no user of an export: it has no address, hash and quotaOctets' }
    else yield { line, address, password: '', hash: hash ?? '', quota: String(quotaOctets ?? '') }
  }
}

const isTextOrNull = (value: unknown): value is string | null =>
  value === null || typeof value === 'string'

const isCountOrNull = (value: unknown): boolean => value === null || Number.isSafeInteger(value)

async function readArray(file: string): Promise<unknown[]> {
  try {
    const users: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (Array.isArray(users)) return users
  } catch (error) {
    const reason = describeReadError(error)
    if (reason !== undefined) throw refused(`cannot read ${file}: ${reason}`, error)
  }
  // Not the error's own words: they may repeat a part of the file.
  throw refused(`${file} is not the users.json of an export`)
}

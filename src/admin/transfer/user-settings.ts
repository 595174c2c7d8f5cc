/**
 * What only another Popgres tells of a user. Switches are there with the account itself, so that
 * nobody who was suspended is awake for a moment; quota, app passwords and certificates come with
 * the password, when all mail is in. What is set here already stays.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { insertCredentials, type KnownCredential } from '../../storage/tenants/credentials.ts'
import { type UserRow, type UserSettings, updateUserQuota } from '../../storage/tenants/users.ts'
import { refusing } from '../refusal.ts'

export interface OldSettings extends Omit<UserSettings, 'isSuspended'> {
  quotaOctets: number | undefined
  credentials: readonly KnownCredential[]
}

/** The part that an account is made with. */
export function switchesOf(settings: OldSettings | undefined): Partial<UserSettings> {
  if (settings === undefined) return {}
  const { isMainPasswordAllowed, loginDelaySeconds, expireDays } = settings
  return { isMainPasswordAllowed, loginDelaySeconds, expireDays }
}

/** The part that comes when the maildrop is whole. @param present as the user was before */
export async function completeUser(
  db: Database,
  user: { domainId: number; userId: number },
  { quotaOctets: octets, quotaMessages: messages, credentials }: OldSettings,
  present: UserRow | undefined,
): Promise<void> {
  const { domainId, userId } = user
  const hasQuota = present?.quotaOctets !== undefined || present?.quotaMessages !== undefined
  if (!hasQuota && (octets !== undefined || messages !== undefined))
    await refusing(() => updateUserQuota(db, domainId, userId, { octets, messages }))
  await refusing(() => insertCredentials(db, user, credentials))
}

/**
 * Asked before anything is destroyed: whether a legal hold forbids it. The database's functions ask
 * again; here the operator is told which hold it is.
 */
import type { Database } from '../storage/postgres/database.ts'
import { selectHold } from '../storage/tenants/holds.ts'
import { formatAddress } from './address.ts'
import { refused } from './refusal.ts'

/**
 * @param userId undefined: all of the domain is to go
 * @throws {Failure} OPERATION_REFUSED while a hold is on the user, the domain, or anybody in it
 */
export async function refuseHeld(
  db: Database,
  domainId: number,
  userId: number | undefined,
): Promise<void> {
  const hold = await selectHold(db, domainId, userId)
  if (hold === undefined) return
  const { localPart, domainName, since, reason } = hold
  const held = localPart === undefined ? domainName : formatAddress({ localPart, domainName })
  throw refused(
    `${held} is under a legal hold since ${since.toISOString().slice(0, 10)} (${reason}): ` +
      `nothing of it can be removed; "popgres hold release ${held}" ends the hold`,
  )
}

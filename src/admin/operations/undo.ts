/**
 * Undoing what was deleted, and the opposite, forgetting for good. What a session has deleted lies
 * in the trash for the domain's trash_days and comes back from there as it was: same unique-ids,
 * same order. From a backup it comes by transfer/restore.ts.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { sqlStateOf } from '../../storage/postgres/sqlstate.ts'
import {
  eraseMessageRows,
  eraseUserRows,
  restoreTrash,
  selectTrash,
  type TrashedMessage,
  type TrashQuestion,
} from '../../storage/tenants/maildrops/trash.ts'
import { deleteSession } from '../../storage/tenants/sessions.ts'
import { formatAddress } from '../address.ts'
import { refuseHeld } from '../held.ts'
import { refused, refusing } from '../refusal.ts'
import { findSession } from '../session-prefix.ts'
import { findMessage } from './messages.ts'
import { requireUser } from './users.ts'

export interface UndoReport {
  address: string
  isDryRun: boolean
  /** how many came back, or would */
  restored: number
  /** what was asked for, the oldest first */
  messages: TrashedMessage[]
}

const OBJECT_IN_USE = '55006'

/**
 * @param asked its session may be the beginning of an id
 * @param how isKick ends the user's session first, instead of refusing while there is one
 * @throws {Failure} OPERATION_REFUSED if the trash has nothing of that
 */
export async function restoreDeleted(
  db: Database,
  address: string,
  asked: TrashQuestion,
  how: { isDryRun: boolean; isKick: boolean },
): Promise<UndoReport> {
  const { row, domainName } = await requireUser(db, address)
  const kept = formatAddress({ localPart: row.localPart, domainName })
  const { sessionId: prefix } = asked
  const sessionId = prefix && (await findSession(db, row, prefix))
  const question = { ...asked, sessionId }
  const isNone = prefix !== undefined && sessionId === undefined
  const messages = isNone ? [] : await selectTrash(db, row, question)
  if (messages.length === 0)
    throw refused(
      `the trash of ${kept} has nothing of that: what was restored before is in the maildrop ` +
        `already ("popgres message list ${kept}"); "popgres message history ${kept}" shows who ` +
        'deleted what; older mail comes from a backup by "popgres restore"',
    )
  const report = { address: kept, isDryRun: how.isDryRun, messages }
  if (how.isDryRun) return { ...report, restored: messages.length }
  if (how.isKick) await deleteSession(db, row.domainId, row.userId)
  const restored = await refusingOpen(kept, () => restoreTrash(db, kept, question))
  return { ...report, restored }
}

/**
 * Out of maildrop, trash and bodies at once, for good.
 * @param ids uids or unique-ids, as findMessage knows them
 * @returns how many were erased, and the ids that were nowhere
 */
export async function eraseMessages(
  db: Database,
  address: string,
  ids: readonly string[],
  isKick: boolean,
): Promise<{ erased: number; missing: string[] }> {
  const { row, domainName } = await requireUser(db, address)
  await refuseHeld(db, row.domainId, row.userId)
  const uids = new Set<number>()
  const missing: string[] = []
  for (const id of ids) {
    const traced = await findMessage(db, row, id)
    if (traced === undefined || traced.place === 'gone') missing.push(id)
    else uids.add(traced.uid)
  }
  if (isKick) await deleteSession(db, row.domainId, row.userId)
  const kept = formatAddress({ localPart: row.localPart, domainName })
  const erased = await refusingOpen(kept, () => eraseMessageRows(db, kept, [...uids]))
  return { erased, missing }
}

/** With all mail, the trash, the log and the bodies that nobody else has. */
export async function eraseUser(db: Database, address: string): Promise<void> {
  const { row, domainName } = await requireUser(db, address)
  const kept = formatAddress({ localPart: row.localPart, domainName })
  await refuseHeld(db, row.domainId, row.userId)
  await refusing(() => eraseUserRows(db, kept))
}

async function refusingOpen<T>(address: string, statement: () => Promise<T>): Promise<T> {
  try {
    return await refusing(statement)
  } catch (error) {
    if (sqlStateOf(error) !== OBJECT_IN_USE) throw error
    const line = `${address} has its maildrop open: wait, or end the session with --kick`
    throw refused(line, error)
  }
}

/**
 * Proves over a history and the final state of the database that an acknowledged message was served
 * until a QUIT that was acknowledged deleted it, and never after. A pure function: checker.test.ts shows
 * it good and bad histories made by hand.
 */
import type { HistoryEvent } from '../history.ts'
import { checkCounts, checkRecovery } from './counts.ts'
import { checkDeletes } from './deletes.ts'
import { checkDeliveries } from './deliveries.ts'
import { checkExclusion } from './exclusion.ts'
import type { FinalState } from './final.ts'
import { checkHonesty } from './honesty.ts'
import { readRecords } from './records.ts'
import { checkUniqueIds } from './unique-ids.ts'
import type { Violation } from './violation.ts'

export function checkHistory(events: readonly HistoryEvent[], final: FinalState): Violation[] {
  const records = readRecords(events)
  return [
    ...checkDeliveries(records, final),
    ...checkDeletes(records, final),
    ...checkExclusion(records),
    ...checkUniqueIds(records, final),
    ...checkCounts(records, final),
    ...checkHonesty(events, records),
    ...checkRecovery(events),
  ]
}

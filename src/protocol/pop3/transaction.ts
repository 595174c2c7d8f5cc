/**
 * The TRANSACTION state, RFC 1939 §5 and §7, and the way into UPDATE (§6). Commands read and mark
 * the listing; nothing is deleted before QUIT, and QUIT answers what the database answered.
 */
import { assert } from '../../base/assert.ts'
import type { ImportedIds, Pop3Outcome } from './actions.ts'
import type { Dialogue } from './dialogue.ts'
import { NONE_IMPORTED } from './listing.ts'
import {
  alreadyDeleted,
  COMMIT_FAILED,
  MAILDROP_UNAVAILABLE,
  MESSAGE_UNAVAILABLE,
  noSuchMessage,
  type Refusal,
} from './replies.ts'

/** LIMIT: messages whose imported unique-ids are asked for, and held, at once; about 140 KB. */
const UNIQUE_IDS_PAGE_MESSAGES = 2_000

/** The message must exist and not be marked: the same for LIST, UIDL, RETR, TOP and DELE. */
export function checkPresent(dialogue: Dialogue, number: number): Refusal | undefined {
  const { listing } = dialogue
  if (!listing.hasNumber(number)) return noSuchMessage(listing.total)
  if (listing.isDeleted(number)) return alreadyDeleted(number)
  return undefined
}

export function checkNamed(dialogue: Dialogue, number: number | undefined): Refusal | undefined {
  return number === undefined ? undefined : checkPresent(dialogue, number)
}

export function checkTopOf(
  dialogue: Dialogue,
  { number }: { number: number },
): Refusal | undefined {
  return checkPresent(dialogue, number)
}

/** RFC 1939 §5: messages marked as deleted are not counted. */
export function tellStatus(dialogue: Dialogue): void {
  const { messageCount, octets } = dialogue.listing
  dialogue.accept(`${messageCount} ${octets}`)
}

export function listSizes(dialogue: Dialogue, number: number | undefined): void {
  const { listing } = dialogue
  if (number !== undefined) {
    dialogue.accept(`${number} ${listing.octetsOf(number)}`)
    return
  }
  dialogue.accept(dialogue.words.scanListingFollows(listing.messageCount, listing.octets))
  dialogue.stream(listing.serializeSizes())
}

/** RFC 1939 §7. */
export function listUniqueIds(dialogue: Dialogue, number: number | undefined): void {
  if (number === undefined) {
    tellUniqueIds(dialogue, 1)
    return
  }
  askForImportedIds(dialogue, number, number, (imported) => {
    if (imported === undefined) dialogue.refuse(MAILDROP_UNAVAILABLE)
    else {
      const uniqueId = dialogue.listing.uniqueIdOf(number, imported.uniqueIds[0])
      dialogue.accept(`${number} ${uniqueId}`)
    }
  })
}

/**
 * The listing from message `first` on. Imported unique-ids are asked for page by page as the peer
 * takes them, and none is kept. One page that cannot be had leaves the listing without an end.
 */
function tellUniqueIds(dialogue: Dialogue, first: number): void {
  const { total, hasUniqueIds } = dialogue.listing
  const last = hasUniqueIds ? Math.min(total, first + UNIQUE_IDS_PAGE_MESSAGES - 1) : total
  askForImportedIds(dialogue, first, last, (imported) => {
    if (imported === undefined) {
      if (first === 1) dialogue.refuse(MAILDROP_UNAVAILABLE)
      else dialogue.close('cut-short')
      return
    }
    if (first === 1) dialogue.accept(dialogue.words.uniqueIdsFollow)
    const proceed = last < total ? () => tellUniqueIds(dialogue, last + 1) : undefined
    dialogue.stream(dialogue.listing.serializeUniqueIds(first, last, imported), proceed)
  })
}

/** Asks only where there are some. @param answer gets undefined if they cannot be had */
function askForImportedIds(
  dialogue: Dialogue,
  first: number,
  last: number,
  answer: (imported: ImportedIds | undefined) => void,
): void {
  const { listing } = dialogue
  if (!listing.hasUniqueIds || listing.total === 0) {
    answer(NONE_IMPORTED)
    return
  }
  const [firstUid, lastUid] = [listing.uidOf(first), listing.uidOf(last)]
  dialogue.ask({ kind: 'unique-ids', firstUid, lastUid }, (_, outcome) => {
    const isRefused = outcome.kind === 'unavailable'
    assert(isRefused || outcome.kind === 'unique-ids', 'unique-ids has two outcomes')
    answer(isRefused ? undefined : outcome)
  })
}

/** RFC 1939 §5: the size told is that of the listing, before byte-stuffing. */
export function retrieve(dialogue: Dialogue, number: number): void {
  const octets = dialogue.listing.octetsOf(number)
  askForMessage(dialogue, number, dialogue.words.octetsFollow(octets), undefined)
}

/**
 * RFC 1939 §7. CLIENT: fetchmail sends `TOP n 99999999` for RETR; a message has fewer lines than
 * octets, so that is one, and saves counting them.
 */
export function retrieveTop(
  dialogue: Dialogue,
  { number, bodyLines }: { number: number; bodyLines: number },
): void {
  const isWhole = bodyLines >= dialogue.listing.octetsOf(number)
  askForMessage(dialogue, number, dialogue.words.topFollows, isWhole ? undefined : bodyLines)
}

function askForMessage(
  dialogue: Dialogue,
  number: number,
  text: string,
  bodyLines: number | undefined,
): void {
  const uid = dialogue.listing.uidOf(number)
  const octets = dialogue.listing.octetsOf(number)
  const header = Buffer.from(`+OK ${text}\r\n`, 'utf8')
  const isAsciiOnly = dialogue.parameters.isUtf8Asked && !dialogue.isUtf8
  const action = { kind: 'retrieve', uid, octets, header, bodyLines, isAsciiOnly } as const
  dialogue.ask(action, answerRetrieve)
}

function answerRetrieve(dialogue: Dialogue, outcome: Pop3Outcome): void {
  if (outcome.kind === 'retrieved') return
  assert(outcome.kind === 'unavailable', 'retrieve is answered by retrieved or unavailable')
  dialogue.refuse(MESSAGE_UNAVAILABLE[outcome.reason])
}

/** RFC 1939 §5: marks only; the number stays taken for the rest of the session. */
export function markDeleted(dialogue: Dialogue, number: number): void {
  dialogue.listing.markDeleted(number)
  dialogue.accept(dialogue.words.messageDeleted(number))
}

export function unmarkAll(dialogue: Dialogue): void {
  const { listing } = dialogue
  listing.unmarkAll()
  dialogue.accept(dialogue.words.maildropHas(listing.messageCount, listing.octets))
}

export function doNothing(dialogue: Dialogue): void {
  dialogue.accept('')
}

/** RFC 1939 §6: enters UPDATE. Nothing is said before it is known what became of the deletes. */
export function commit(dialogue: Dialogue): void {
  const uids = dialogue.listing.deletedUids()
  dialogue.state = 'update'
  dialogue.ask({ kind: 'commit', uids }, answerCommit)
}

function answerCommit(dialogue: Dialogue, outcome: Pop3Outcome): void {
  if (outcome.kind === 'committed') {
    const { hostname } = dialogue.parameters
    dialogue.accept(dialogue.words.signOffAfterUpdate(hostname, dialogue.listing.messageCount))
  } else if (outcome.kind === 'commit-failed') {
    dialogue.refuse(COMMIT_FAILED[outcome.reason])
  } else {
    // Neither +OK nor -ERR would be the truth, so nothing is said.
    assert(outcome.kind === 'commit-undecided', 'commit is answered by its three outcomes')
  }
  dialogue.close('quit')
}

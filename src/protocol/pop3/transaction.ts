/**
 * The TRANSACTION state, RFC 1939 §5 and §7, and the way into UPDATE (§6). Commands read and mark
 * the listing; nothing is deleted before QUIT, and QUIT answers what the database answered.
 */
import { assert } from '../../base/assert.ts'
import type { Pop3Outcome } from './actions.ts'
import type { Dialogue } from './dialogue.ts'
import {
  alreadyDeleted,
  COMMIT_FAILED,
  MAILDROP_UNAVAILABLE,
  MESSAGE_UNAVAILABLE,
  noSuchMessage,
  type Refusal,
} from './replies.ts'

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

/** RFC 1939 §7. Imported unique-ids are asked for first, where there are some. */
export function listUniqueIds(dialogue: Dialogue, number: number | undefined): void {
  if (dialogue.listing.isUniqueIdsLoaded) {
    tellUniqueIds(dialogue, number)
    return
  }
  dialogue.ask({ kind: 'unique-ids' }, (_, outcome) => {
    if (outcome.kind === 'unavailable') {
      dialogue.refuse(MAILDROP_UNAVAILABLE)
      return
    }
    assert(outcome.kind === 'unique-ids', 'unique-ids is answered by unique-ids or unavailable')
    dialogue.listing.loadUniqueIds(outcome.uniqueIds)
    tellUniqueIds(dialogue, number)
  })
}

function tellUniqueIds(dialogue: Dialogue, number: number | undefined): void {
  const { listing } = dialogue
  if (number !== undefined) {
    dialogue.accept(`${number} ${listing.uniqueIdOf(number)}`)
    return
  }
  dialogue.accept(dialogue.words.uniqueIdsFollow)
  dialogue.stream(listing.serializeUniqueIds())
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

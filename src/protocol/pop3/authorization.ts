/**
 * The AUTHORIZATION state, RFC 1939 §4 and §7: who the peer is, and the way into the maildrop. What
 * is verified, and the lease, are the owner's affair: `login` asks for both at once. A login that
 * fails for any reason forgets the name, so PASS never works twice after one USER.
 */
import { assert } from '../../base/assert.ts'
import { Secret } from '../../base/secret.ts'
import type { LoginAttempt, Pop3Outcome } from './actions.ts'
import type { Dialogue } from './dialogue.ts'
import { Listing } from './listing.ts'
import {
  APOP_UNAVAILABLE,
  LOGIN_REFUSALS,
  maildropOpened,
  PLAINTEXT_REFUSED,
  type Refusal,
  SEND_PASSWORD,
  signOff,
  TOO_MANY_LOGINS,
  USER_FIRST,
} from './replies.ts'

/**
 * LIMIT: wrong credentials before the connection is closed. CLIENT: Thunderbird spends three on one
 * wrong password, by trying it with three mechanisms.
 */
const LOGIN_FAILURES_MAX = 5

export function checkPlaintext(dialogue: Dialogue): Refusal | undefined {
  return dialogue.parameters.isPlaintextAllowed ? undefined : PLAINTEXT_REFUSED
}

/** RFC 1939 §7; a second USER replaces the first, and whether the name exists is never told. */
export function nameUser(dialogue: Dialogue, name: string): void {
  dialogue.userName = name
  dialogue.reply(SEND_PASSWORD)
}

/** LENIENT: RFC 1939 §7 has PASS follow USER immediately; other commands between do no harm. */
export function checkUserNamed(dialogue: Dialogue): Refusal | undefined {
  return checkPlaintext(dialogue) ?? (dialogue.userName === undefined ? USER_FIRST : undefined)
}

export function logInWithPassword(dialogue: Dialogue, password: Buffer): void {
  const name = dialogue.userName
  assert(name !== undefined, 'PASS was checked to follow USER')
  // A copy: the line is a view of the input, which is larger and lives as long as it pleases.
  logIn(dialogue, { mechanism: 'password', name, password: new Secret(Buffer.from(password)) })
}

export function checkApop(dialogue: Dialogue): Refusal | undefined {
  return dialogue.parameters.apopTimestamp === undefined ? APOP_UNAVAILABLE : undefined
}

/** RFC 1939 §7 */
export function logInWithDigest(
  dialogue: Dialogue,
  { name, digest }: { name: string; digest: string },
): void {
  const timestamp = dialogue.parameters.apopTimestamp
  assert(timestamp !== undefined, 'APOP was checked to be possible')
  logIn(dialogue, { mechanism: 'apop', name, timestamp, digest })
}

/** RFC 1939 §4: QUIT before a login closes and changes nothing. */
export function leave(dialogue: Dialogue): void {
  dialogue.reply(signOff(dialogue.parameters.hostname))
  dialogue.close('quit')
}

function logIn(dialogue: Dialogue, attempt: LoginAttempt): void {
  dialogue.userName = undefined
  dialogue.ask({ kind: 'login', attempt }, answerLogin)
}

function answerLogin(dialogue: Dialogue, outcome: Pop3Outcome): void {
  if (outcome.kind === 'login-refused') {
    refuseLogin(dialogue, outcome.reason)
    return
  }
  assert(outcome.kind === 'opened', 'login is answered by opened or login-refused')
  const listing = new Listing(outcome)
  dialogue.enterTransaction(listing)
  dialogue.reply(maildropOpened(outcome.displayName, listing.messageCount, listing.octets))
}

function refuseLogin(dialogue: Dialogue, reason: keyof typeof LOGIN_REFUSALS): void {
  // Who is turned away by a lock or a fault of ours has proved nothing wrong and may go on trying.
  if (reason === 'bad-credentials' || reason === 'suspended') dialogue.loginFailureCount += 1
  if (dialogue.loginFailureCount < LOGIN_FAILURES_MAX) {
    dialogue.reply(LOGIN_REFUSALS[reason])
    return
  }
  dialogue.reply(reason === 'bad-credentials' ? TOO_MANY_LOGINS : LOGIN_REFUSALS[reason])
  dialogue.close('login-failures')
}

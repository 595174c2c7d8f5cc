/**
 * From a proof of identity to an open maildrop, for every way to log in alike. What is verified,
 * and the lease, are the owner's affair: `login` asks for both at once. A login that fails for any
 * reason forgets the name, so PASS never works twice after one USER.
 */
import { assert } from '../../base/assert.ts'
import type { SaslExchange } from '../sasl/mechanism.ts'
import type { LoginAttempt, LoginRefusal, Pop3Outcome } from './actions.ts'
import type { Dialogue } from './dialogue.ts'
import { Listing } from './listing.ts'
import { LOGIN_CANCELLED, LOGIN_REFUSALS, TOO_MANY_LOGINS } from './replies.ts'

/**
 * LIMIT: wrong credentials before the connection is closed. CLIENT: Thunderbird spends three on one
 * wrong password, by trying it with three mechanisms.
 */
const LOGIN_FAILURES_MAX = 5

const FAILURES: ReadonlySet<LoginRefusal> = new Set([
  'bad-credentials',
  'needs-password',
  'suspended',
])

type Opened = Extract<Pop3Outcome, { kind: 'opened' }>

/** @param exchange the SASL exchange that the attempt came from, which may have a last word */
export function logIn(dialogue: Dialogue, attempt: LoginAttempt, exchange?: SaslExchange): void {
  dialogue.userName = undefined
  dialogue.ask({ kind: 'login', attempt }, (_, outcome) => {
    if (outcome.kind === 'login-refused') {
      answerRefused(dialogue, outcome.reason, exchange)
      return
    }
    assert(outcome.kind === 'opened', 'login is answered by opened or login-refused')
    answerOpened(dialogue, outcome, exchange)
  })
}

export function refuseLogin(dialogue: Dialogue, reason: LoginRefusal): void {
  // Who is turned away by a lock or a fault of ours has proved nothing wrong and may go on trying.
  if (FAILURES.has(reason)) dialogue.loginFailureCount += 1
  if (dialogue.loginFailureCount < LOGIN_FAILURES_MAX) {
    dialogue.refuse(LOGIN_REFUSALS[reason])
    return
  }
  dialogue.refuse(reason === 'bad-credentials' ? TOO_MANY_LOGINS : LOGIN_REFUSALS[reason])
  dialogue.close('login-failures')
}

/** RFC 7628 §3.2.3: some mechanisms say why in a challenge, whose answer nobody reads. */
function answerRefused(dialogue: Dialogue, reason: LoginRefusal, exchange?: SaslExchange): void {
  const last = reason === 'bad-credentials' ? exchange?.refused?.() : undefined
  if (last?.kind === 'challenge') {
    dialogue.challenge(last.octets, () => refuseLogin(dialogue, reason))
  } else {
    refuseLogin(dialogue, reason)
  }
}

/** RFC 5802 §3: SCRAM proves the server too, before +OK. */
function answerOpened(dialogue: Dialogue, opened: Opened, exchange?: SaslExchange): void {
  const last = exchange?.proved?.(opened.serverSignature)
  if (last?.kind !== 'challenge') {
    enterMaildrop(dialogue, opened)
    return
  }
  dialogue.challenge(last.octets, (response) => {
    if (Buffer.isBuffer(response) && exchange?.respond(response).kind === 'accepted') {
      enterMaildrop(dialogue, opened)
      return
    }
    // The maildrop is open, and only the end of the connection closes it.
    dialogue.refuse(LOGIN_CANCELLED)
    dialogue.close('login-cancelled')
  })
}

function enterMaildrop(dialogue: Dialogue, opened: Opened): void {
  const listing = new Listing(opened)
  dialogue.enterTransaction(listing, opened.policy)
  const { displayName } = opened
  const owner = isPrintableAscii(displayName) ? displayName : undefined
  const { messageCount, octets } = listing
  dialogue.accept(dialogue.words.maildropOpened(owner, messageCount, octets))
}

function isPrintableAscii(text: string): boolean {
  return /^[\x20-\x7e]+$/.test(text)
}

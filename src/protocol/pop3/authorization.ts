/**
 * The AUTHORIZATION state, RFC 1939 §4 and §7: who the peer is, without SASL (authentication.ts);
 * and STLS, RFC 2595 §4, which is best before it.
 */
import { assert } from '../../base/assert.ts'
import { Secret } from '../../base/secret.ts'
import type { Dialogue } from './dialogue.ts'
import { logIn } from './login.ts'
import {
  APOP_UNAVAILABLE,
  PLAINTEXT_REFUSED,
  type Refusal,
  TLS_UNAVAILABLE,
  USER_FIRST,
} from './replies.ts'

export function checkPlaintext(dialogue: Dialogue): Refusal | undefined {
  return dialogue.parameters.isPlaintextAllowed ? undefined : PLAINTEXT_REFUSED
}

/** RFC 1939 §7; a second USER replaces the first, and whether the name exists is never told. */
export function nameUser(dialogue: Dialogue, name: string): void {
  dialogue.userName = name
  dialogue.accept(dialogue.words.sendPassword)
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

export function checkTls(dialogue: Dialogue): Refusal | undefined {
  return dialogue.parameters.isTlsOffered ? undefined : TLS_UNAVAILABLE
}

/** RFC 2595 §4. While it lasts the session is deaf: what the peer sends now is for TLS. */
export function startTls(dialogue: Dialogue): void {
  dialogue.accept(dialogue.words.beginTls)
  dialogue.ask({ kind: 'start-tls' }, (_, outcome) => {
    assert(outcome.kind === 'secured', 'start-tls is answered by secured alone')
    dialogue.enterSecured(outcome.parameters)
  })
  dialogue.state = 'securing'
}

/** RFC 1939 §4: QUIT before a login closes and changes nothing. */
export function leave(dialogue: Dialogue): void {
  dialogue.accept(dialogue.words.signOff(dialogue.parameters.hostname))
  dialogue.close('quit')
}

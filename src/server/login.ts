/**
 * The way from a proof of identity to an open maildrop: the proof is verified, a place among the
 * sessions of the domain taken, then the lease. What is refused on the way is given back.
 */
import type { Log } from '../base/log.ts'
import type { Authenticator } from '../mail/auth/authenticator.ts'
import {
  type Maildrop,
  type MaildropContext,
  type MaildropOwner,
  type OpenResult,
  openMaildrop,
} from '../mail/maildrop/maildrop.ts'
import type { LoginAttempt, LoginRefusal, Pop3Outcome } from '../protocol/pop3/actions.ts'
import type { Leave, Places } from './connection-limits.ts'
import type { Pop3Peer } from './pop3-parameters.ts'

export interface LoginContext extends MaildropContext {
  authenticator: Authenticator
  /** Of this worker, by domain id. */
  sessionPlaces: Places
  /** Of this worker, by user: who has the maildrop open, and who waits for it. */
  userPlaces: Places
}

export interface Login {
  kind: 'opened'
  maildrop: Maildrop
  /** To be called when the session ends. */
  leave: Leave
  /** The address, for the log. */
  user: string
  outcome: Pop3Outcome
}

/** What the session to be is asked and told. */
export type SessionOwner = Omit<MaildropOwner, 'client' | 'credentialId'>

/** @throws {Failure} temporary: the database is away, or too many logins wait */
export async function logIn(
  context: LoginContext,
  attempt: LoginAttempt,
  peer: Pop3Peer,
  owner: SessionOwner,
): Promise<Login | { kind: 'login-refused'; reason: LoginRefusal }> {
  const verdict = await context.authenticator.verify(attempt, peer, owner.signal)
  if (verdict.kind === 'refused') return { kind: 'login-refused', reason: verdict.reason }
  const { account, credentialId, serverSignature } = verdict
  const user = `${account.localPart}@${account.domainName}`
  const fields = { ...shownOf(peer), user, mechanism: attempt.mechanism, credential: credentialId }
  const leaveDomain = context.sessionPlaces.enter(String(account.domainId))
  if (leaveDomain === undefined) return refuse(context.log, fields, 'too-many-sessions')
  const leaveUser = context.userPlaces.enter(`${account.domainId} ${account.userId}`)
  const leave = (): void => {
    leaveDomain()
    leaveUser?.()
  }
  if (leaveUser === undefined) {
    leave()
    return refuse(context.log, fields, 'in-use')
  }
  let result: OpenResult | undefined
  try {
    result = await openMaildrop(context, account, { credentialId, client: peer.client, ...owner })
  } finally {
    if (result?.kind !== 'opened') leave()
  }
  if (result.kind !== 'opened') return refuse(context.log, fields, result.kind)
  const { maildrop } = result
  const { counters, lease, uidPrefix } = maildrop
  context.log.info({ ...fields, session: lease.sessionId }, 'login')
  const { messageCount, octets, hasUniqueIds } = counters
  const outcome: Pop3Outcome = {
    kind: 'opened',
    displayName: account.localPart,
    messageCount,
    octets,
    uidPrefix,
    hasUniqueIds,
    policy: { loginDelaySeconds: account.loginDelaySeconds, expireDays: account.expireDays },
    serverSignature,
  }
  return { kind: 'opened', maildrop, leave, user, outcome }
}

/** Who changed a password while another used the old one, made that one wrong. */
function refuse(
  log: Log,
  fields: object,
  why: Exclude<OpenResult['kind'], 'opened'> | 'too-many-sessions',
): { kind: 'login-refused'; reason: LoginRefusal } {
  log.info({ ...fields, reason: why }, 'login refused')
  return { kind: 'login-refused', reason: why === 'credential-changed' ? 'bad-credentials' : why }
}

/** Of a peer, for the log. */
export function shownOf({ client, tls, host }: Pop3Peer): object {
  return { client, tls, host }
}

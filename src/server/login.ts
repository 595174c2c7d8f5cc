/**
 * The way from a proof of identity to an open maildrop: the proof is verified, a place among the
 * sessions of the domain taken, then the lease. Who is expected, because this password was right
 * lately, gets place and lease while the account is looked up. What is refused on the way is given
 * back.
 */
import type { Log } from '../base/log.ts'
import type { Authenticator, LoginDesk } from '../mail/auth/authenticator.ts'
import {
  attemptLease,
  type LeaseAttempt,
  type Maildrop,
  type MaildropContext,
  type MaildropOwner,
  type OpenResult,
  openMaildrop,
} from '../mail/maildrop/maildrop.ts'
import type { LoginAttempt, LoginRefusal, Pop3Outcome } from '../protocol/pop3/actions.ts'
import {
  type LoginAccount,
  type LoginLookup,
  type LoginQuestion,
  lookUpLogin,
} from '../storage/accounts.ts'
import { type Entitlement, entitlementOf, isSame } from '../storage/leases.ts'
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
export type SessionOwner = Pick<MaildropOwner, 'presence' | 'idleMs' | 'end'>

/** @throws {Failure} temporary: the database is away, or too many logins wait */
export async function logIn(
  context: LoginContext,
  attempt: LoginAttempt,
  peer: Pop3Peer,
  owner: SessionOwner,
): Promise<Login | { kind: 'login-refused'; reason: LoginRefusal }> {
  const desk = new MaildropDesk(context, peer.client)
  let result: OpenResult | { kind: 'too-many-sessions' } | undefined
  try {
    const verdict = await context.authenticator.verify(attempt, peer, owner.presence, desk)
    if (verdict.kind === 'refused') return { kind: 'login-refused', reason: verdict.reason }
    const { account, credentialId, serverSignature } = verdict
    const user = `${account.localPart}@${account.domainName}`
    const { presence, idleMs, end } = owner
    const { client, tls, host } = peer
    const { mechanism } = attempt
    const how = { client, tls: tls ?? (peer.isEncrypted ? 'balancer' : undefined), mechanism }
    result = await desk.open(account, { ...how, credentialId, presence, idleMs, end })
    const session = result.kind === 'opened' ? result.maildrop.lease.sessionId : undefined
    const shown = { client, tls, host, user, mechanism, credential: credentialId, session }
    if (result.kind !== 'opened') return refuse(context.log, shown, result.kind)
    const { maildrop } = result
    context.log.info(shown, 'login')
    const outcome = outcomeOf(account, maildrop, serverSignature)
    return { kind: 'opened', maildrop, leave: desk.leave, user, outcome }
  } finally {
    if (result?.kind !== 'opened') await desk.giveBack()
  }
}

/** Holds what one login has got so far: places, and the lease that was asked for. */
class MaildropDesk implements LoginDesk {
  readonly #context: LoginContext
  readonly #client: string
  #places: Leave[] = []
  #attempt: LeaseAttempt | undefined

  constructor(context: LoginContext, client: string) {
    this.#context = context
    this.#client = client
  }

  /** Who would get no lease now is only looked up. */
  async lookUp(question: LoginQuestion, expected?: Entitlement): Promise<LoginLookup> {
    const { db, keeper } = this.#context
    const mayOpen = expected && keeper.isTrusted() && this.#enter(expected) === 'entered'
    if (!mayOpen) return lookUpLogin(db, question)
    this.#attempt = await attemptLease(this.#context, expected, question, this.#client)
    return this.#attempt.lookup
  }

  /** @param account as it was judged */
  async open(
    account: LoginAccount,
    owner: MaildropOwner,
  ): Promise<OpenResult | { kind: 'too-many-sessions' }> {
    const first = this.#attempt
    const isFor = first && isSame(first.entitlement, entitlementOf(account, owner.credentialId))
    if (isFor && first.kind !== 'credential-changed')
      return openMaildrop(this.#context, account, owner, first)
    await this.giveBack()
    const entered = this.#enter(account)
    return entered === 'entered' ? openMaildrop(this.#context, account, owner) : { kind: entered }
  }

  async giveBack(): Promise<void> {
    const attempt = this.#attempt
    this.#attempt = undefined
    if (attempt?.kind === 'acquired') await attempt.maildrop.close('login-refused')
    this.leave()
  }

  readonly leave = (): void => {
    for (const leave of this.#places.splice(0)) leave()
  }

  #enter(user: { domainId: number; userId: number }): 'entered' | 'too-many-sessions' | 'in-use' {
    const { sessionPlaces, userPlaces } = this.#context
    const leaveDomain = sessionPlaces.enter(String(user.domainId))
    if (leaveDomain === undefined) return 'too-many-sessions'
    const leaveUser = userPlaces.enter(`${user.domainId} ${user.userId}`)
    if (leaveUser === undefined) leaveDomain()
    else this.#places.push(leaveDomain, leaveUser)
    return leaveUser === undefined ? 'in-use' : 'entered'
  }
}

function outcomeOf(
  { localPart, loginDelaySeconds, expireDays }: LoginAccount,
  { counters, uidPrefix }: Maildrop,
  serverSignature: Buffer | undefined,
): Pop3Outcome {
  const { messageCount, octets, hasUniqueIds } = counters
  return {
    kind: 'opened',
    displayName: localPart,
    messageCount,
    octets,
    uidPrefix,
    hasUniqueIds,
    policy: { loginDelaySeconds, expireDays },
    serverSignature,
  }
}

/** Who changed a password while another used the old one, made that one wrong. */
function refuse(
  log: Log,
  shown: object,
  why: Exclude<OpenResult['kind'], 'opened'> | 'too-many-sessions',
): { kind: 'login-refused'; reason: LoginRefusal } {
  log.info({ ...shown, reason: why }, 'login refused')
  return { kind: 'login-refused', reason: why === 'credential-changed' ? 'bad-credentials' : why }
}

/** Of a peer, for the log. */
export function shownOf({ client, tls, host }: Pop3Peer): object {
  return { client, tls, host }
}

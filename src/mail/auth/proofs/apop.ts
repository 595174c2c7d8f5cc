/** APOP at the door: one decryption and one digest, whoever it is. */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { Keyring, type Opened } from '../../../base/keyring.ts'
import { Secret } from '../../../base/secret.ts'
import type { LoginAttempt } from '../../../protocol/pop3/actions.ts'
import type { LoginAccount } from '../../../storage/accounts.ts'
import { apopDigest, apopUse } from '../apop-secret.ts'
import type { LoginName } from '../login-name.ts'
import { type Judgement, unknownUser } from './judgement.ts'

type ApopAttempt = Extract<LoginAttempt, { mechanism: 'apop' }>

/** Identity columns begin at 1. */
const NOBODY = apopUse(0, 0)

export class ApopJudge {
  readonly #keyring: Keyring
  readonly #hasKey: boolean
  /** Stands in for the secret of a user who is unknown or has none. */
  readonly #dummy: Secret
  readonly #sealedDummy: Buffer

  /** @param keyring undefined: nobody can use APOP */
  constructor(keyring: Keyring | undefined) {
    this.#hasKey = keyring !== undefined
    this.#keyring = keyring ?? Keyring.random()
    this.#dummy = new Secret(randomBytes(16))
    this.#sealedDummy = this.#keyring.seal(NOBODY, this.#dummy)
  }

  judge(
    attempt: ApopAttempt,
    name: LoginName | undefined,
    account: LoginAccount | undefined,
  ): Judgement {
    const opened = this.#open(account)
    const secret = opened.kind === 'opened' ? opened.secret : this.#dummy
    const isEqual = isSameText(apopDigest(attempt.timestamp, secret), attempt.digest)
    if (account === undefined) return unknownUser(name)
    if (!this.#hasKey) return { reason: 'no secret key', account }
    if (account.apopSecret === undefined) return { reason: 'no APOP secret', account }
    if (opened.kind === 'damaged') return { reason: 'damaged APOP secret', account }
    if (opened.kind === 'other-key') return { reason: 'APOP secret of another key', account }
    return { reason: isEqual ? 'verified' : 'wrong APOP digest', account }
  }

  #open(account: LoginAccount | undefined): Opened {
    if (account?.apopSecret === undefined) return this.#keyring.open(NOBODY, this.#sealedDummy)
    return this.#keyring.open(apopUse(account.domainId, account.userId), account.apopSecret)
  }
}

/** Compares in a time that depends only on the length of what the peer sent. */
function isSameText(expected: string, given: string): boolean {
  const [a, b] = [Buffer.from(expected), Buffer.from(given)]
  return a.length === b.length && timingSafeEqual(a, b)
}

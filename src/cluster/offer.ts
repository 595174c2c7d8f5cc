/**
 * What this worker can offer to everybody, as the database says at each heartbeat. CAPA tells it
 * before it is known who logs in, so nothing is offered that some user could not use.
 */
import type { Keyring } from '../base/keyring.ts'
import type { MaildropPolicy } from '../protocol/pop3/actions.ts'
import { existsApopUser, selectScramUse } from '../storage/accounts.ts'
import type { Database } from '../storage/postgres/database.ts'
import { isHolderAway } from '../storage/postgres/sqlstate.ts'
import { existsOauthProvider } from '../storage/tenants/oauth-providers.ts'
import { selectPolicy } from '../storage/tenants/policies.ts'

export class Offer {
  readonly #db: Database
  readonly #keyring: Keyring | undefined
  readonly #isScramWanted: boolean
  #hasApop = false
  #hasScram = false
  #hasBearer = false
  #policy: { policy: MaildropPolicy; isPolicyByUser: boolean } = {
    policy: { loginDelaySeconds: 0, expireDays: undefined },
    isPolicyByUser: false,
  }

  /** @param isScramWanted the operator has named the mechanisms: some users are enough for SCRAM */
  constructor(db: Database, keyring: Keyring | undefined, isScramWanted: boolean) {
    this.#db = db
    this.#keyring = keyring
    this.#isScramWanted = isScramWanted
  }

  readonly isApopOffered = (): boolean => this.#hasApop
  readonly isScramOffered = (): boolean => this.#hasScram
  readonly hasBearerProvider = (): boolean => this.#hasBearer
  readonly policy = (): { policy: MaildropPolicy; isPolicyByUser: boolean } => this.#policy

  /** @throws {Failure} a storage failure; what was known stays, as where some domains are away */
  async refresh(): Promise<void> {
    const db = this.#db
    const known = await Promise.all([
      unlessAway(existsApopUser(db)),
      unlessAway(selectScramUse(db)),
      unlessAway(existsOauthProvider(db)),
      unlessAway(selectPolicy(db)),
    ])
    const [hasApop, scramUse, hasBearer, common] = known
    if (hasApop !== undefined) this.#hasApop = this.#keyring !== undefined && hasApop
    if (scramUse !== undefined) {
      const hasScram = scramUse === 'all' || (scramUse === 'some' && this.#isScramWanted)
      this.#hasScram = this.#keyring !== undefined && hasScram
    }
    if (hasBearer !== undefined) this.#hasBearer = hasBearer
    if (common !== undefined) {
      const { isByUser, ...policy } = common
      this.#policy = { policy, isPolicyByUser: isByUser }
    }
  }
}

/** @returns undefined: not all domains can be asked */
async function unlessAway<T>(asked: Promise<T>): Promise<T | undefined> {
  try {
    return await asked
  } catch (error) {
    if (isHolderAway(error)) return undefined
    throw error
  }
}

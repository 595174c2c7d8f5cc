/**
 * SCRAM at the door. The keys of a user are sealed for that user and for the password hash they
 * were derived beside: after a change of the password, by whatever way, they do not open and the
 * old password is of no use here either. A login by password derives them anew.
 */
import { createHash, randomBytes } from 'node:crypto'
import { Failure } from '../../../base/failure.ts'
import { Keyring } from '../../../base/keyring.ts'
import type { Log } from '../../../base/log.ts'
import type { Secret } from '../../../base/secret.ts'
import type { LoginAttempt } from '../../../protocol/pop3/actions.ts'
import type { ScramSalt } from '../../../protocol/sasl/mechanism.ts'
import { passwordForms } from '../../../protocol/sasl/text.ts'
import {
  type LoginAccount,
  selectScramSaltKey,
  updateScramKeys,
} from '../../../storage/accounts.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import type { LoginName } from '../login-name.ts'
import { isWholePassword } from '../schemes/scheme.ts'
import {
  deriveScramKeys,
  inventedSalt,
  inventedScramKeys,
  parseScramKeys,
  SCRAM_ITERATIONS,
  type ScramKeys,
  scramUse,
  serializeScramKeys,
  verifyScramProof,
} from '../scram-keys.ts'
import { type Judgement, unknownUser } from './judgement.ts'

type ScramAttempt = Extract<LoginAttempt, { mechanism: 'scram' }>

/** A user, and the hash of the password that keys are of. */
export interface ScramOwner {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  passwordHash: string
}

const NONCE_OCTETS = 18
/** No proof fits them; the salt is never shown. */
const NOBODYS_KEYS = inventedScramKeys(randomBytes(32), '')
/** LIMIT: who logs in meanwhile gets keys at a later login. */
const DERIVING_MAX = 16

/** What a user's keys are sealed for. */
export function scramSealUse(domainId: number, userId: number, passwordHash: string): string {
  const hash = createHash('sha256').update(passwordHash).digest('hex')
  return `${scramUse(domainId, userId)} ${hash}`
}

/**
 * The salt is the one that is invented for the address while there are no keys, so that nobody sees
 * when a user gets some.
 * @returns what users.scram_keys holds
 */
export async function deriveSealedKeys(
  db: Database,
  keyring: Keyring,
  owner: ScramOwner,
  password: Secret,
): Promise<Buffer> {
  const { domainId, userId, passwordHash } = owner
  const salt = inventedSalt(await selectScramSaltKey(db), saltName(owner))
  const keys = await deriveScramKeys(password, salt, SCRAM_ITERATIONS)
  return keyring.seal(scramSealUse(domainId, userId, passwordHash), serializeScramKeys(keys))
}

const saltName = ({ localPart, domainName }: Pick<LoginName, 'localPart' | 'domainName'>): string =>
  `${localPart}@${domainName}`.toLowerCase()

export class ScramJudge {
  readonly #db: Database
  readonly #log: Log
  readonly #keyring: Keyring
  readonly #hasKey: boolean
  readonly #sealedDummy: Buffer
  #saltKey: Buffer | undefined
  /** Passwords whose keys are being derived, by the hash. */
  readonly #deriving = new Set<string>()

  /** @param keyring undefined: nobody can use SCRAM */
  constructor({ db, log, keyring }: { db: Database; log: Log; keyring: Keyring | undefined }) {
    this.#db = db
    this.#log = log
    this.#hasKey = keyring !== undefined
    this.#keyring = keyring ?? Keyring.random()
    const keys = serializeScramKeys(NOBODYS_KEYS)
    this.#sealedDummy = this.#keyring.seal(scramSealUse(0, 0, ''), keys)
  }

  /**
   * @param typed what the peer calls itself, for who cannot have an address
   * @throws {Failure} a storage failure
   */
  async salt(
    typed: string,
    name: LoginName | undefined,
    account: LoginAccount | undefined,
  ): Promise<ScramSalt> {
    this.#saltKey ??= await selectScramSaltKey(this.#db)
    const invented = inventedSalt(this.#saltKey, name ? saltName(name) : typed)
    const { salt, iterations } = this.#open(account) ?? {
      salt: invented,
      iterations: SCRAM_ITERATIONS,
    }
    return { salt, iterations, nonce: randomBytes(NONCE_OCTETS).toString('base64') }
  }

  judge(
    attempt: ScramAttempt,
    name: LoginName | undefined,
    account: LoginAccount | undefined,
  ): Judgement {
    const keys = this.#open(account)
    const { authMessage, clientProof } = attempt
    const serverSignature = verifyScramProof(keys ?? NOBODYS_KEYS, authMessage, clientProof)
    if (account === undefined) return unknownUser(name)
    if (!this.#hasKey) return { reason: 'no secret key', account }
    if (keys === undefined) return { reason: 'no SCRAM keys', account }
    if (serverSignature === undefined) return { reason: 'wrong SCRAM proof', account }
    if (!account.isMainPasswordAllowed) return { reason: 'main password not allowed', account }
    return { reason: 'verified', account, serverSignature }
  }

  /**
   * Derives keys for a user who has none that open. Not to be waited for; never throws.
   * @param sent the password with which the user has just logged in
   */
  async remember(account: LoginAccount, sent: Secret): Promise<void> {
    const { passwordHash, domainId, userId, domainName } = account
    const isWanted = this.#hasKey && passwordHash !== undefined && !this.#open(account)
    // Only a part of it is proven: a slip of the finger in the rest would be locked in.
    if (!isWanted || !isWholePassword(passwordHash, sent)) return
    if (this.#deriving.has(passwordHash) || this.#deriving.size >= DERIVING_MAX) return
    this.#deriving.add(passwordHash)
    try {
      const [password] = passwordForms(sent)
      const keys = await deriveSealedKeys(
        this.#db,
        this.#keyring,
        { ...account, passwordHash },
        password,
      )
      await updateScramKeys(this.#db, domainId, userId, passwordHash, keys)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log.warn({ domain: domainName, error }, 'SCRAM keys were not stored')
    } finally {
      this.#deriving.delete(passwordHash)
    }
  }

  /** The same work for whoever it is. @returns undefined if there are no keys to be used */
  #open(account: LoginAccount | undefined): ScramKeys | undefined {
    const { domainId = 0, userId = 0, passwordHash = '', scramKeys } = account ?? {}
    const use = scramSealUse(domainId, userId, passwordHash)
    const opened = this.#keyring.open(use, scramKeys ?? this.#sealedDummy)
    if (opened.kind !== 'opened' || scramKeys === undefined) return undefined
    return parseScramKeys(opened.secret)
  }
}

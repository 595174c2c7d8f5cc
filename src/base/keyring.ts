/**
 * The secret keys of POPGRES_SECRET_KEY. The first seals, all of them open: a new key is put in
 * front on every node, `popgres secret rotate` seals everything anew, then the old one is removed.
 *
 * Sealed form: key id (4 octets of SHA-256 of the key), nonce (12), tag (16), ciphertext;
 * AES-256-GCM. What it is for is authenticated along with it: what was copied to another user's
 * row, or to another column, does not open.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto'
import { assert } from './assert.ts'
import { Secret } from './secret.ts'

const CIPHER = 'aes-256-gcm'
const KEY_OCTETS = 32
const KEY_ID_OCTETS = 4
const NONCE_OCTETS = 12
const TAG_OCTETS = 16
const HEAD_OCTETS = KEY_ID_OCTETS + NONCE_OCTETS + TAG_OCTETS

interface Key {
  id: Buffer
  key: Secret
}

/** `other-key`: sealed under a key that is not here; `damaged`: changed, cut, or for other use. */
export type Opened = { kind: 'opened'; secret: Secret } | { kind: 'other-key' | 'damaged' }

export class Keyring {
  readonly #keys: readonly Key[]

  /** @param keys 32 octets each, at least one; the first seals */
  constructor(keys: readonly Secret[]) {
    assert(keys.length > 0, 'a keyring has a key')
    this.#keys = keys.map((key) => {
      assert(key.reveal().length === KEY_OCTETS, 'a secret key has 32 octets')
      const id = createHash('sha256').update(key.reveal()).digest().subarray(0, KEY_ID_OCTETS)
      return { id, key }
    })
  }

  /** @returns a keyring that nothing was ever sealed under, to stand in where there is none */
  static random(): Keyring {
    return new Keyring([new Secret(randomBytes(KEY_OCTETS))])
  }

  /** The keys themselves, to be handed to a process of ours. */
  get keys(): readonly Secret[] {
    return this.#keys.map(({ key }) => key)
  }

  /**
   * @param use what it is for and whose, e.g. `apop 3 17`
   * @returns what may be stored
   */
  seal(use: string, secret: Secret): Buffer {
    return this.#sealWith(randomBytes(NONCE_OCTETS), use, secret)
  }

  /**
   * The same secret, sealed under the key that seals today. It keeps its nonce, by which it is
   * known to be the same; that is safe, as under one key a nonce still belongs to one secret.
   * @returns undefined if it does not open
   */
  reseal(use: string, sealed: Buffer): Buffer | undefined {
    const opened = this.open(use, sealed)
    if (opened.kind !== 'opened') return undefined
    const nonce = sealed.subarray(KEY_ID_OCTETS, KEY_ID_OCTETS + NONCE_OCTETS)
    return this.#sealWith(nonce, use, opened.secret)
  }

  #sealWith(nonce: Buffer, use: string, secret: Secret): Buffer {
    const { id, key } = this.#current()
    const cipher = createCipheriv(CIPHER, key.reveal(), nonce)
    cipher.setAAD(boundTo(use))
    const ciphertext = Buffer.concat([cipher.update(secret.reveal()), cipher.final()])
    return Buffer.concat([id, nonce, cipher.getAuthTag(), ciphertext])
  }

  open(use: string, sealed: Buffer): Opened {
    if (sealed.length < HEAD_OCTETS) return { kind: 'damaged' }
    const key = this.#keys.find(({ id }) => id.equals(sealed.subarray(0, KEY_ID_OCTETS)))?.key
    if (key === undefined) return { kind: 'other-key' }
    const nonce = sealed.subarray(KEY_ID_OCTETS, KEY_ID_OCTETS + NONCE_OCTETS)
    const decipher = createDecipheriv(CIPHER, key.reveal(), nonce, { authTagLength: TAG_OCTETS })
    decipher.setAAD(boundTo(use))
    decipher.setAuthTag(sealed.subarray(KEY_ID_OCTETS + NONCE_OCTETS, HEAD_OCTETS))
    const text = decipher.update(sealed.subarray(HEAD_OCTETS))
    try {
      return { kind: 'opened', secret: new Secret(Buffer.concat([text, decipher.final()])) }
    } catch {
      return { kind: 'damaged' }
    }
  }

  /** Whether `sealed` was sealed under the key that seals today: if not, rotating seals it anew. */
  isCurrent(sealed: Buffer): boolean {
    return sealed.subarray(0, KEY_ID_OCTETS).equals(this.#current().id)
  }

  /** Whether the key that `sealed` names is here, whatever has become of the rest. */
  isKnown(sealed: Buffer): boolean {
    return this.#keys.some(({ id }) => id.equals(sealed.subarray(0, KEY_ID_OCTETS)))
  }

  /**
   * Octets that every node with the same first key derives alike and nobody else can (HKDF-SHA-256,
   * RFC 5869).
   */
  derive(use: string, octets: number): Buffer {
    const { key } = this.#current()
    return Buffer.from(hkdfSync('sha256', key.reveal(), Buffer.alloc(0), boundTo(use), octets))
  }

  #current(): Key {
    const [current] = this.#keys
    assert(current !== undefined, 'a keyring has a key')
    return current
  }
}

const boundTo = (use: string): Buffer => Buffer.from(`popgres ${use}`, 'latin1')

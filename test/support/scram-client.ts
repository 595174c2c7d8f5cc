/**
 * The client's side of SCRAM-SHA-256, written from RFC 5802 §3 and §5 and sharing no code with the
 * server. It prepares nothing: give it names and passwords that need no SASLprep.
 */
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto'

export interface ScramClientOptions {
  name: string
  password: string
  /**
   * RFC 5802 §6. `n`: cannot bind (the default), `y`: could, but -PLUS was not listed; octets: bind
   * these, those that RFC 9266 §2 has TLS 1.3 export:
   * `socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))`.
   */
  binding?: 'n' | 'y' | Buffer
  authzid?: string
  nonce?: string
}

export class ScramClient {
  readonly #password: string
  readonly #nonce: string
  readonly #header: string
  readonly #bare: string
  readonly #bound: Buffer
  #serverSignature: Buffer | undefined

  constructor({ name, password, binding = 'n', authzid, nonce }: ScramClientOptions) {
    this.#password = password
    this.#nonce = nonce ?? randomBytes(18).toString('base64')
    const flag = typeof binding === 'string' ? binding : 'p=tls-exporter'
    this.#header = `${flag},${authzid === undefined ? '' : `a=${escaped(authzid)}`},`
    this.#bare = `n=${escaped(name)},r=${this.#nonce}`
    this.#bound = typeof binding === 'string' ? Buffer.alloc(0) : binding
  }

  /** client-first-message */
  first(): string {
    return `${this.#header}${this.#bare}`
  }

  /**
   * @returns client-final-message
   * @throws {Error} if the server's first message is not one that goes on from ours
   */
  final(serverFirst: string): string {
    const attributes = new Map(serverFirst.split(',').map((part) => [part[0], part.slice(2)]))
    const [nonce, salt, iterations] = ['r', 's', 'i'].map((key) => attributes.get(key))
    if (!nonce?.startsWith(this.#nonce) || nonce === this.#nonce || !salt || !iterations)
      throw new Error(`not a server-first-message for ${this.#nonce}: ${serverFirst}`)
    const binding = Buffer.concat([Buffer.from(this.#header), this.#bound]).toString('base64')
    const withoutProof = `c=${binding},r=${nonce}`
    const authMessage = `${this.#bare},${serverFirst},${withoutProof}`

    const saltOctets = Buffer.from(salt, 'base64')
    const salted = pbkdf2Sync(this.#password, saltOctets, Number(iterations), 32, 'sha256')
    const clientKey = hmac(salted, 'Client Key')
    const storedKey = createHash('sha256').update(clientKey).digest()
    const signature = hmac(storedKey, authMessage)
    const proof = Buffer.alloc(32)
    for (let i = 0; i < 32; i += 1)
      proof.writeUInt8(clientKey.readUInt8(i) ^ signature.readUInt8(i), i)
    this.#serverSignature = hmac(hmac(salted, 'Server Key'), authMessage)
    return `${withoutProof},p=${proof.toString('base64')}`
  }

  /** Whether the server, by its server-final-message, knows the keys of our password too. */
  isServer(serverFinal: string): boolean {
    const expected = this.#serverSignature
    const given = Buffer.from(/^v=([A-Za-z0-9+/=]+)$/.exec(serverFinal)?.[1] ?? '', 'base64')
    return expected?.length === given.length && timingSafeEqual(expected, given)
  }
}

function escaped(name: string): string {
  return name.replace(/[,=]/g, (sign) => (sign === ',' ? '=2C' : '=3D'))
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

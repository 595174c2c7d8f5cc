/**
 * A certificate authority of the test's own, made when it is asked for: no OpenSSL program, no
 * files that expire.
 */
import { type CertificateExtension, generate } from 'selfsigned'

export interface TestCertificate {
  /** PEM */
  cert: string
  /** PEM */
  key: string
}

export interface IssueOptions {
  notBefore?: Date
  notAfter?: Date
}

export class TestAuthority {
  readonly #own: TestCertificate

  private constructor(own: TestCertificate) {
    this.#own = own
  }

  static async create(name = 'Popgres test authority'): Promise<TestAuthority> {
    const extensions: CertificateExtension[] = [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ]
    const made = await generate([{ name: 'commonName', value: name }], {
      keyType: 'ec',
      algorithm: 'sha256',
      extensions,
    })
    return new TestAuthority({ cert: made.cert, key: made.private })
  }

  /** PEM: what a client that trusts this authority is given as `ca`. */
  get cert(): string {
    return this.#own.cert
  }

  /** @param names of a host, e.g. `pop.example`, `*.example`; or of a user, for a client */
  async issue(names: readonly string[], options: IssueOptions = {}): Promise<TestCertificate> {
    const { notBefore, notAfter } = options
    const made = await generate([{ name: 'commonName', value: names[0] ?? '' }], {
      keyType: 'ec',
      algorithm: 'sha256',
      ca: this.#own,
      ...(notBefore && { notBeforeDate: notBefore }),
      ...(notAfter && { notAfterDate: notAfter }),
      extensions: [
        { name: 'keyUsage', digitalSignature: true, critical: true },
        { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
        { name: 'subjectAltName', altNames: names.map((value) => ({ type: 2, value })) },
      ],
    })
    return { cert: made.cert, key: made.private }
  }
}

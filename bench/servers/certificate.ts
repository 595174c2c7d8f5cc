/** One certificate for all servers (ECDSA P-256, as the first start of Popgres makes). */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generate } from 'selfsigned'

export interface Certificate {
  certFile: string
  keyFile: string
  /** PEM: what a client that is to trust it is given as `ca`. */
  cert: string
}

const HOSTNAME = 'localhost'

/** @returns the one that is in the place already, if there is one */
export async function makeCertificate(place: string): Promise<Certificate> {
  const certFile = join(place, 'certificate.pem')
  const keyFile = join(place, 'certificate-key.pem')
  if (!existsSync(certFile)) {
    const made = await generate([{ name: 'commonName', value: HOSTNAME }], {
      keyType: 'ec',
      algorithm: 'sha256',
      extensions: [
        { name: 'basicConstraints', cA: false, critical: true },
        { name: 'keyUsage', digitalSignature: true, critical: true },
        { name: 'extKeyUsage', serverAuth: true },
        { name: 'subjectAltName', altNames: [{ type: 2, value: HOSTNAME }] },
      ],
    })
    writeFileSync(keyFile, made.private, { mode: 0o600 })
    writeFileSync(certFile, made.cert)
  }
  return { certFile, keyFile, cert: readFileSync(certFile, 'utf8') }
}

/**
 * A certificate chain with its private key: looked at, and made ready for TLS. What is wrong with
 * one is said in words, as it is an operator who has to put it right.
 */
import { constants, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContext } from 'node:tls'
import { Failure } from '../../base/failure.ts'
import type { Secret } from '../../base/secret.ts'

export interface KeyPair {
  /** PEM, the host's own certificate first. */
  chain: string
  /** PEM, not encrypted. */
  key: Secret
}

export interface OpenedKeyPair {
  pair: KeyPair
  /** The host's own. */
  certificate: X509Certificate
  context: SecureContext
}

/**
 * With forward secrecy and authenticated encryption, RFC 9325 §4.2. In this order, whatever the
 * client's is: keys of 128 bits are as far out of reach as longer ones, and SHA-256, which comes
 * with them, is what handshakes are made of and what processors do in hardware. A client that puts
 * ChaCha20 first has no AES in hardware, and gets it.
 */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':')

/** For how long a client may resume: no longer than a ticket's key lives. */
const SESSION_SECONDS = 43_200

/**
 * @param ticketKeys 48 octets, see tickets.ts
 * @throws {Failure} TLS_CERTIFICATE, with what is wrong; nothing of the key is in it
 */
export function openKeyPair(pair: KeyPair, ticketKeys?: Buffer): OpenedKeyPair {
  const certificate = readCertificate(pair.chain)
  checkKey(pair.key, certificate)
  try {
    const context = createSecureContext({
      cert: pair.chain,
      key: pair.key.reveal(),
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.3',
      ciphers: CIPHERS,
      secureOptions:
        constants.SSL_OP_NO_RENEGOTIATION |
        constants.SSL_OP_CIPHER_SERVER_PREFERENCE |
        constants.SSL_OP_PRIORITIZE_CHACHA,
      // Sessions with client certificates are resumed only where this is set, to the same on all
      // nodes.
      sessionIdContext: 'popgres',
      sessionTimeout: SESSION_SECONDS,
      ...(ticketKeys && { ticketKeys }),
    })
    return { pair, certificate, context }
  } catch (error) {
    throw unusable(`OpenSSL refuses it (${reasonOf(error)})`, error)
  }
}

/** Whether clients that connect to `hostName` will accept it; of `*.example` any name below it. */
export function coversHost(certificate: X509Certificate, hostName: string): boolean {
  return certificate.checkHost(hostName.replace(/^\*/, 'any-name')) !== undefined
}

/** @throws {Failure} TLS_CERTIFICATE */
export function readCertificate(chain: string): X509Certificate {
  try {
    return new X509Certificate(chain)
  } catch (error) {
    throw unusable('the certificate is not one in PEM form', error)
  }
}

/** @throws {Failure} TLS_CERTIFICATE, if it is not the certificate's */
export function checkKey(key: Secret, certificate: X509Certificate): void {
  if (!certificate.checkPrivateKey(readKey(key)))
    throw unusable('the private key is not that of the first certificate')
}

function readKey(key: Secret): KeyObject {
  const pem = key.reveal()
  if (/BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED/.test(pem.toString('latin1')))
    throw unusable('the private key is encrypted: store it without a passphrase')
  try {
    return createPrivateKey(pem)
  } catch (error) {
    throw unusable('the private key is not one in PEM form', error)
  }
}

function unusable(what: string, cause?: unknown): Failure {
  return new Failure('TLS_CERTIFICATE', what, cause)
}

/** OpenSSL's few words, if it is an error of OpenSSL. */
export function reasonOf(error: unknown): string {
  const { reason, code, message } = error as NodeJS.ErrnoException & { reason?: string }
  return reason ?? code ?? message
}

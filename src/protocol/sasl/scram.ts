/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677): neither the password nor anything that
 * stands for it crosses the wire, and the server proves itself too. Here the messages are read and
 * written, the channel binding and the nonce are checked; whether the proof is right is judged
 * where the keys are (mail/auth/scram-keys.ts). A failure is told by -ERR and never by "e=".
 */
import { assert } from '../../base/assert.ts'
import { decodeSaslName, parseGs2 } from './gs2.ts'
import type { SaslExchange, SaslStep, ScramSalt } from './mechanism.ts'
import { challenge, GO_ON, MALFORMED } from './steps.ts'
import { textOf } from './text.ts'

/** LIMIT: two names with every sign escaped, a nonce, and what is bound. */
const MESSAGE_MAX_OCTETS = 4096
/** Any extension may come along but `m=`: RFC 5802 §5.1 wants that refused, wherever it stands. */
const FIRST_BARE = /^n=([^,]+),r=([\x21-\x2b\x2d-\x7e]{1,256})(?:,[A-Za-ln-z]=[^,\0]+)*$/
const FINAL = /^c=([^,]+),r=([^,]+)(?:,[A-Za-ln-z]=[^,\0]+)*,p=([A-Za-z0-9+/]{43}=)$/
/** 16 signs are 96 bits of base64 or more. */
const SERVER_NONCE = /^[\x21-\x2b\x2d-\x7e]{16,}$/

/** What a client may say of channel binding, and what it then binds. */
export interface ScramBinding {
  flags: readonly string[]
  octets: Buffer
}

/**
 * RFC 5802 §6: a client that could bind but was not offered -PLUS says `y`. Where -PLUS was listed,
 * somebody in between took it off the list.
 */
export const unbound = (isPlusListed: boolean): ScramBinding => ({
  flags: isPlusListed ? ['n'] : ['n', 'y'],
  octets: Buffer.alloc(0),
})

/** @param octets RFC 9266: what TLS 1.3 exports */
export const bound = (octets: Buffer): ScramBinding => ({ flags: ['p=tls-exporter'], octets })

interface ClientFirst {
  name: string
  bare: string
  nonce: string
  /** What `c=` must say in the client's final message. */
  binding: string
}

export class ScramExchange implements SaslExchange {
  readonly #binding: ScramBinding
  #read: (octets: Buffer) => SaslStep = (octets) => this.#readFirst(octets)
  #first: ClientFirst | undefined

  constructor(binding: ScramBinding) {
    this.#binding = binding
  }

  begin(initial: Buffer | undefined): SaslStep {
    return initial === undefined ? GO_ON : this.respond(initial)
  }

  respond(octets: Buffer): SaslStep {
    return this.#read(octets)
  }

  salted({ salt, iterations, nonce }: ScramSalt): SaslStep {
    const first = this.#first
    assert(first !== undefined, 'a salt comes after the name it is for')
    assert(SERVER_NONCE.test(nonce), 'a nonce is long and printable')
    const whole = `${first.nonce}${nonce}`
    const serverFirst = `r=${whole},s=${salt.toString('base64')},i=${iterations}`
    this.#read = (octets) => this.#readFinal(octets, first, whole, serverFirst)
    return challenge(serverFirst)
  }

  proved(serverSignature: Buffer | undefined): SaslStep {
    assert(serverSignature !== undefined, 'a SCRAM proof is answered by a signature')
    this.#read = (octets) => (octets.length === 0 ? { kind: 'accepted' } : MALFORMED)
    return challenge(`v=${serverSignature.toString('base64')}`)
  }

  #readFirst(octets: Buffer): SaslStep {
    const gs2 = parseGs2(textOf(octets, MESSAGE_MAX_OCTETS) ?? '')
    if (gs2 === undefined || !this.#binding.flags.includes(gs2.flag)) return MALFORMED
    const [, saslName, nonce] = FIRST_BARE.exec(gs2.rest) ?? []
    const name = saslName && decodeSaslName(saslName)
    if (!name || nonce === undefined) return MALFORMED
    // Nobody acts for another.
    if (gs2.authzid !== undefined && gs2.authzid !== name) return MALFORMED
    const binding = Buffer.concat([Buffer.from(gs2.header), this.#binding.octets])
    this.#first = { name, bare: gs2.rest, nonce, binding: binding.toString('base64') }
    return { kind: 'ask-salt', name }
  }

  #readFinal(octets: Buffer, first: ClientFirst, nonce: string, serverFirst: string): SaslStep {
    const text = textOf(octets, MESSAGE_MAX_OCTETS) ?? ''
    const [, binding, sentNonce, proof] = FINAL.exec(text) ?? []
    if (proof === undefined || binding !== first.binding || sentNonce !== nonce) return MALFORMED
    const clientProof = Buffer.from(proof, 'base64')
    // Two bits of the last sign stand for nothing: one proof is written in one way.
    if (clientProof.toString('base64') !== proof) return MALFORMED
    const withoutProof = text.slice(0, text.lastIndexOf(',p='))
    const authMessage = `${first.bare},${serverFirst},${withoutProof}`
    const { name } = first
    return { kind: 'prove', attempt: { mechanism: 'scram', name, authMessage, clientProof } }
  }
}

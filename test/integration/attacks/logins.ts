/**
 * One attempt to log in, by each mechanism, as a client says it: with whatever name and secret, to
 * the last word of the server.
 */

import { Secret } from '../../../src/base/secret.ts'
import { apopDigest } from '../../../src/mail/auth/apop-secret.ts'
import type { Pop3Client } from '../../support/pop3-client.ts'
import { ScramClient } from '../../support/scram-client.ts'

/** @param secret password, APOP secret or token */
export type Login = (client: Pop3Client, name: string, secret: string) => Promise<string>

export const base64 = (text: string): string => Buffer.from(text, 'utf8').toString('base64')

const decoded = (challenge: string): string =>
  Buffer.from(challenge.slice('+ '.length), 'base64').toString('utf8')

/** Timestamp of the greeting by connection: APOP needs it. */
const timestamps = new WeakMap<Pop3Client, string>()

/** Reads the greeting. */
export async function greet(client: Pop3Client): Promise<Pop3Client> {
  timestamps.set(client, /<.*>/.exec(await client.line())?.[0] ?? '')
  return client
}

const byToken =
  (mechanism: string, head: (name: string) => string): Login =>
  async (client, name, token) => {
    const said = base64(`${head(name)}\x01auth=Bearer ${token}\x01\x01`)
    const reply = await client.ask(`AUTH ${mechanism} ${said}`)
    return reply.startsWith('+ ') ? client.ask('AQ==') : reply
  }

export const LOGINS = {
  'USER and PASS': async (client, name, password) => {
    const reply = await client.ask(`USER ${name}`)
    return reply.startsWith('+OK') ? client.ask(`PASS ${password}`) : reply
  },
  APOP: (client, name, secret) => {
    const digest = apopDigest(timestamps.get(client) ?? '', new Secret(secret))
    return client.ask(`APOP ${name} ${digest}`)
  },
  PLAIN: (client, name, password) => client.ask(`AUTH PLAIN ${base64(`\0${name}\0${password}`)}`),
  LOGIN: async (client, name, password) => {
    const reply = await client.ask(`AUTH LOGIN ${base64(name)}`)
    return reply.startsWith('+ ') ? client.ask(base64(password)) : reply
  },
  'SCRAM-SHA-256': async (client, name, password) => {
    const exchange = new ScramClient({ name, password })
    const first = await client.ask(`AUTH SCRAM-SHA-256 ${base64(exchange.first())}`)
    if (!first.startsWith('+ ')) return first
    const reply = await client.ask(base64(exchange.final(decoded(first))))
    return reply.startsWith('+ ') ? client.ask('') : reply
  },
  OAUTHBEARER: byToken('OAUTHBEARER', (name) => `n,a=${name},`),
  XOAUTH2: byToken('XOAUTH2', (name) => `user=${name}`),
  EXTERNAL: (client, name) => client.ask(`AUTH EXTERNAL ${base64(name)}`),
} satisfies Record<string, Login>

export const MECHANISMS = Object.entries(LOGINS) as [keyof typeof LOGINS, Login][]

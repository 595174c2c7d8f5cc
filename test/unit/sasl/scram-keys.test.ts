/** What is stored for SCRAM, how a proof is judged by it, and what is shown of nobody. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
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
} from '../../../src/mail/auth/scram-keys.ts'
import { ScramClient } from '../../support/scram-client.ts'

const STORED =
  'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU='

const NUL = Buffer.alloc(1)
const SALT = Buffer.alloc(16, 0x5a)
const derived = (password: string): Promise<ScramKeys> =>
  deriveScramKeys(new Secret(password), SALT)
const parsed = (text: string): ScramKeys | undefined => parseScramKeys(new Secret(text))
const textOf = (keys: ScramKeys): string => serializeScramKeys(keys).reveal().toString('latin1')

/** What a client with that password, and the server with those keys, say to each other. */
function exchange(keys: ScramKeys, password: string) {
  const client = new ScramClient({ name: 'tim', password, nonce: 'abc' })
  const serverFirst = `r=abcdef,s=${keys.salt.toString('base64')},i=${keys.iterations}`
  const [withoutProof, proof = ''] = client.final(serverFirst).split(',p=')
  const authMessage = `${client.first().slice(3)},${serverFirst},${withoutProof}`
  return { client, authMessage, proof: Buffer.from(proof, 'base64') }
}

/** Whether the client is accepted, and accepts the server. */
function isAgreed(keys: ScramKeys, password: string): boolean {
  const { client, authMessage, proof } = exchange(keys, password)
  const signature = verifyScramProof(keys, authMessage, proof)
  return signature !== undefined && client.isServer(`v=${signature.toString('base64')}`)
}

describe('derived keys', () => {
  it('are those of the password of RFC 7677 §3, in the text form of RFC 5803', async () => {
    const salt = Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64')
    const keys = await deriveScramKeys(new Secret('pencil'), salt, 4096)
    expect(textOf(keys)).toBe(STORED)
    expect(parsed(STORED)).toEqual(keys)
  })

  it('fit the password and no other', async () => {
    const keys = await derived('tanstaaf')
    expect(keys).toMatchObject({ salt: SALT, iterations: SCRAM_ITERATIONS })
    expect(isAgreed(keys, 'tanstaaf')).toBe(true)
    expect(isAgreed(keys, 'tanstaag')).toBe(false)
  })

  it('come from the prepared password, where it can be prepared', async () => {
    expect(isAgreed(await derived('pa\u0308ss'), 'p\u00e4ss')).toBe(true)
    expect(isAgreed(await derived('\u{1f600}'), '\u{1f600}')).toBe(true)
  })

  it('refuse a right proof that is cut, or goes on', async () => {
    const keys = await derived('pencil')
    const { authMessage, proof } = exchange(keys, 'pencil')
    expect(verifyScramProof(keys, authMessage, proof)).toBeDefined()
    for (const wrong of [proof.subarray(0, 31), Buffer.concat([proof, NUL]), Buffer.alloc(0)])
      expect(verifyScramProof(keys, authMessage, wrong)).toBeUndefined()
  })

  it('are not shown by printing their text form', async () => {
    expect(`${serializeScramKeys(await derived('pencil'))}`).toBe('[secret]')
  })
})

describe('stored text', () => {
  it.each([
    ['nothing', ''],
    ['another mechanism', STORED.replace('256', '1')],
    ['fewer than 1000 iterations', STORED.replace('4096', '999')],
    ['more than a million iterations', STORED.replace('4096', '1000001')],
    ['iterations that are no number', STORED.replace('4096', '0x10')],
    ['no salt', STORED.replace('W22ZaJ0SNY7soEsUEjb6gQ==', '')],
    ['a salt that is too long', STORED.replace('W22Z', 'W22Z'.repeat(20))],
    ['a salt that is no base64', STORED.replace('gQ==', 'gQ=')],
    ['a key that is too short', STORED.replace('WG5d', '')],
    ['bits that mean nothing', STORED.replace('4qY=', '4qZ=')],
    ['no server key', STORED.replace(/:[^:]*$/, '')],
    ['something behind', `${STORED} `],
    ['a line end', `${STORED}\n`],
  ])('is refused: %s', (_, text) => {
    expect(text).not.toBe(STORED)
    expect(parsed(text)).toBeUndefined()
  })

  it('is sealed for one user', () => {
    expect(scramUse(3, 17)).toBe('scram 3 17')
  })
})

describe('an invented salt', () => {
  const saltKey = randomBytes(32)

  it('is the same for a name on every node', () => {
    const salt = inventedSalt(Buffer.from(saltKey), 'tim@example.com')
    expect(inventedSalt(saltKey, 'tim@example.com')).toEqual(salt)
  })

  it('is another for another name, or of another key', () => {
    const salt = inventedSalt(saltKey, 'tim@example.com')
    expect(inventedSalt(saltKey, 'tom@example.com')).not.toEqual(salt)
    expect(inventedSalt(randomBytes(32), 'tim@example.com')).not.toEqual(salt)
  })

  it('has keys that look like real ones and that no proof fits', async () => {
    const real = await deriveScramKeys(new Secret('pencil'), inventedSalt(saltKey, 'tim'))
    const invented = inventedScramKeys(saltKey, 'tim')
    expect(invented).toMatchObject({ salt: real.salt, iterations: real.iterations })
    expect(invented.salt.length).toBe(16)
    expect(isAgreed(real, 'pencil')).toBe(true)
    expect(isAgreed(invented, 'pencil')).toBe(false)
  })
})

/** APOP: the digest of RFC 1939 §7, and the secrets as they are stored. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import {
  apopDigest,
  decryptApopSecret,
  encryptApopSecret,
  isApopSecretOf,
} from '../../../src/mail/auth/apop-secret.ts'

const KEY = new Secret(randomBytes(32))
const OTHER_KEY = new Secret(randomBytes(32))

describe('APOP', () => {
  it('makes the digest of RFC 1939 §7', () => {
    const timestamp = '<1896.697170952@dbc.mtview.ca.us>'
    expect(apopDigest(timestamp, new Secret('tanstaaf'))).toBe('c4c9334bac560ecc979e58001b3e22fb')
  })

  it('gives back the octets of a secret', () => {
    for (const secret of [Buffer.alloc(0), Buffer.from('tanstaaf'), randomBytes(255)]) {
      const stored = encryptApopSecret(KEY, 3, 9_007_199_254_740_991, new Secret(secret))
      const found = decryptApopSecret(KEY, 3, 9_007_199_254_740_991, stored)
      expect(found?.reveal()).toEqual(secret)
    }
  })

  it('stores the secret neither readable nor twice alike', () => {
    const secret = new Secret('tanstaaf')
    const [one, two] = [encryptApopSecret(KEY, 1, 1, secret), encryptApopSecret(KEY, 1, 1, secret)]
    expect(one.includes('tanstaaf')).toBe(false)
    expect(one).not.toEqual(two)
  })

  it('is bound to domain and user', () => {
    const stored = encryptApopSecret(KEY, 1, 12, new Secret('tanstaaf'))
    expect(decryptApopSecret(KEY, 1, 13, stored)).toBeUndefined()
    expect(decryptApopSecret(KEY, 2, 12, stored)).toBeUndefined()
    expect(decryptApopSecret(KEY, 11, 2, stored)).toBeUndefined()
  })

  it('tells another key from damage', () => {
    const stored = encryptApopSecret(KEY, 1, 1, new Secret('tanstaaf'))
    expect(decryptApopSecret(OTHER_KEY, 1, 1, stored)).toBeUndefined()
    expect(isApopSecretOf(OTHER_KEY, stored)).toBe(false)
    expect(isApopSecretOf(KEY, stored)).toBe(true)
  })

  it('takes nothing whose octets were changed or cut', () => {
    const stored = encryptApopSecret(KEY, 1, 1, new Secret('tanstaaf'))
    for (let index = 0; index < stored.length; index++) {
      const changed = Buffer.from(stored)
      changed[index] = (changed[index] ?? 0) ^ 1
      expect(decryptApopSecret(KEY, 1, 1, changed)).toBeUndefined()
      expect(decryptApopSecret(KEY, 1, 1, stored.subarray(0, index))).toBeUndefined()
    }
  })
})

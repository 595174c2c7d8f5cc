/** Sealing under POPGRES_SECRET_KEY: bound to a use, several keys, nothing damaged opens. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'

const [OLD, NEW] = [new Secret(randomBytes(32)), new Secret(randomBytes(32))]
const ring = new Keyring([OLD])
const SECRET = new Secret('tanstaaf')

describe('a keyring', () => {
  it('gives back the octets of a secret', () => {
    for (const octets of [Buffer.alloc(0), Buffer.from('tanstaaf'), randomBytes(255)]) {
      const opened = ring.open('apop 3 1', ring.seal('apop 3 1', new Secret(octets)))
      expect(opened.kind === 'opened' && opened.secret.reveal()).toEqual(octets)
    }
  })

  it('seals neither readable nor twice alike', () => {
    const [one, two] = [ring.seal('a', SECRET), ring.seal('a', SECRET)]
    expect(one.includes('tanstaaf')).toBe(false)
    expect(one).not.toEqual(two)
  })

  it('opens only for the use that it was sealed for', () => {
    expect(ring.open('apop 1 2', ring.seal('apop 12', SECRET))).toEqual({ kind: 'damaged' })
  })

  it('tells another key from damage', () => {
    const sealed = ring.seal('a', SECRET)
    expect(new Keyring([NEW]).open('a', sealed)).toEqual({ kind: 'other-key' })
  })

  it('opens with each of its keys, seals and derives with the first', () => {
    const both = new Keyring([NEW, OLD])
    const sealed = ring.seal('a', SECRET)
    expect(both.open('a', sealed).kind).toBe('opened')
    expect([both.isCurrent(sealed), ring.isCurrent(sealed)]).toEqual([false, true])
    expect(ring.open('a', both.seal('a', SECRET))).toEqual({ kind: 'other-key' })
    expect(both.derive('t', 48)).toEqual(new Keyring([NEW]).derive('t', 48))
    expect(both.derive('t', 48)).not.toEqual(ring.derive('t', 48))
    expect(both.derive('t', 48)).not.toEqual(both.derive('u', 48))
  })

  it('seals the same secret anew under its first key, with the nonce it had', () => {
    const both = new Keyring([NEW, OLD])
    const sealed = ring.seal('a', SECRET)
    const resealed = both.reseal('a', sealed) ?? Buffer.alloc(0)
    const opened = new Keyring([NEW]).open('a', resealed)
    expect(opened.kind === 'opened' && opened.secret.reveal()).toEqual(SECRET.reveal())
    expect(resealed.subarray(4, 16)).toEqual(sealed.subarray(4, 16))
    expect(both.reseal('b', sealed)).toBeUndefined()
    expect(new Keyring([NEW]).reseal('a', sealed)).toBeUndefined()
    expect([both.isKnown(sealed), new Keyring([NEW]).isKnown(sealed)]).toEqual([true, false])
  })

  it('opens nothing whose octets were changed or cut', () => {
    const sealed = ring.seal('a', SECRET)
    for (let index = 0; index < sealed.length; index++) {
      const changed = Buffer.from(sealed)
      changed[index] = (changed[index] ?? 0) ^ 1
      expect(ring.open('a', changed).kind).not.toBe('opened')
      expect(ring.open('a', sealed.subarray(0, index)).kind).not.toBe('opened')
    }
  })
})

/** Which of a user's app passwords was typed, however it was typed. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { findAppPassword } from '../../../src/mail/auth/proofs/app-password.ts'

const digestOf = (secret: string): Buffer => createHash('sha256').update(secret).digest()
const known = ['abcdefghijklmnopqrstuvwx', '234567234567234567234567'].map((secret, index) => ({
  credentialId: String(index),
  digest: digestOf(secret),
  isUseRecorded: true,
}))
const found = (typed: string | Buffer): string | undefined =>
  findAppPassword(known, new Secret(typed))?.credentialId

describe('an app password', () => {
  it.each([
    'abcdefghijklmnopqrstuvwx',
    'abcd-efgh-ijkl-mnop-qrst-uvwx',
    'ABCD EFGH IJKL MNOP QRST UVWX',
    ' abcdefghijkl-mnopqrstuvwx ',
  ])('may be typed %j', (typed) => {
    expect(found(typed)).toBe('0')
  })

  it('is told apart from the others', () => {
    expect(found('2345-6723-4567-2345-6723-4567')).toBe('1')
  })

  it.each([
    ['', ''],
    ['cut', 'abcdefghijklmnopqrstuvw'],
    ['longer', 'abcdefghijklmnopqrstuvwxy'],
    ['of other signs', 'abcdefghijklmnopqrstuvw1'],
    ['with a line end', 'abcdefghijklmnopqrstuvwx\n'],
    ['with other blanks', 'abcd\tefghijklmnopqrstuvwx'],
    ['padded without bound', `${' '.repeat(41)}abcdefghijklmnopqrstuvwx`],
    ['of other octets', Buffer.from('abcdefghijklmnopqrstuvw\u00f8')],
    ['that is the digest of one', digestOf('abcdefghijklmnopqrstuvwx')],
  ])('is not one %s', (_, typed) => {
    expect(found(typed)).toBeUndefined()
  })
})

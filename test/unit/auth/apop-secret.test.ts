/** APOP: the digest of RFC 1939 §7. */
import { expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { apopDigest } from '../../../src/mail/auth/apop-secret.ts'

it('makes the digest of RFC 1939 §7', () => {
  const timestamp = '<1896.697170952@dbc.mtview.ca.us>'
  expect(apopDigest(timestamp, new Secret('tanstaaf'))).toBe('c4c9334bac560ecc979e58001b3e22fb')
})

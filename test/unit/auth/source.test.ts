/** Whom an address stands for: itself, or its IPv6 network. */
import { describe, expect, it } from 'vitest'
import { sourceOf } from '../../../src/mail/auth/source.ts'

describe('source', () => {
  it.each([
    ['2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:fffe'],
    ['2001:db8::1', '2001:db8::2'],
    ['2001:db8::1', '2001:db8:0:0:1:2:3:4'],
    ['2001:db8::2:0:0:1', '2001:db8:0:0:2::7'],
    ['fe80::1%eth0', 'fe80::2'],
    ['::1', '::2'],
    ['1::', '1::9'],
  ])('%s is the same as %s', (one, other) => {
    expect(sourceOf(one)).toBe(sourceOf(other))
  })

  it.each([
    ['2001:db8:1:2::1', '2001:db8:1:3::1'],
    ['2001:db8::1', '2001:db8:1::1'],
    ['2001:db8::1:0:0:0:1', '2001:db8::1:0:0:1'],
    ['192.0.2.7', '192.0.2.8'],
    ['192.0.2.7', 'local'],
    ['::1', '127.0.0.1'],
  ])('%s is another than %s', (one, other) => {
    expect(sourceOf(one)).not.toBe(sourceOf(other))
  })

  it('keeps what is no IPv6 address as it is', () => {
    expect(['192.0.2.7', 'local', ''].map(sourceOf)).toEqual(['192.0.2.7', 'local', ''])
  })
})

import { describe, expect, test } from 'vitest'
import { parseMailAddress } from '../../../src/mail/delivery/recipients.ts'

describe('forward-paths', () => {
  test('split at the last @, the domain in lower case', () => {
    expect(parseMailAddress('Alice@Example.TEST')).toEqual({
      localPart: 'Alice',
      domainName: 'example.test',
    })
  })

  test('RFC 5321 §4.1.2: a quoted local part is the same mailbox', () => {
    expect(parseMailAddress('"alice"@example.test')?.localPart).toBe('alice')
    expect(parseMailAddress('"al\\ice"@example.test')?.localPart).toBe('alice')
    expect(parseMailAddress('"a@b"@example.test')?.localPart).toBe('a@b')
  })

  test('a domain in letters of its script is looked up in ASCII', () => {
    expect(parseMailAddress('a@Bücher.example')?.domainName).toBe('xn--bcher-kva.example')
  })

  test('what cannot be a mailbox here is none', () => {
    for (const text of ['', 'alice', '@example.test', 'alice@', `${'a'.repeat(320)}@example.test`])
      expect(parseMailAddress(text)).toBeUndefined()
  })
})

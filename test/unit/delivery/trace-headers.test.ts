import { describe, expect, test } from 'vitest'
import { serializeTraceHeaders, type Trace } from '../../../src/mail/delivery/trace-headers.ts'

const TRACE: Trace = {
  sender: 'bob@sender.example',
  heloName: 'mta.sender.example',
  clientAddress: '192.0.2.7',
  protocol: 'LMTP',
  hostname: 'mx.example.test',
  transactionId: '0b2f6a0e-3c1d-4a57-9a54-0f9a1d2c3b4e',
  receivedAt: new Date('2025-11-03T04:05:06Z'),
}
const ALICE = {
  domainId: 1,
  userId: 2,
  domainName: 'example.test',
  localPart: 'Alice',
  isOverQuota: false,
  isRefusedWhenFull: false,
}

function headersOf(trace: Partial<Trace> = {}, forwardPath = 'alice@EXAMPLE.test'): string {
  return serializeTraceHeaders({ ...TRACE, ...trace }, ALICE, forwardPath).toString()
}

/** Folding undone (RFC 5322 §2.2.3). */
const unfolded = (text: string): string => text.replace(/\r\n(?=[ \t])/g, '').replace(/ +/g, ' ')

describe('trace headers', () => {
  test('RFC 5321 §4.4: return path, recipient, stamp', () => {
    expect(headersOf()).toBe(
      [
        'Return-Path: <bob@sender.example>',
        'Delivered-To: Alice@example.test',
        'Received: from mta.sender.example ([192.0.2.7]) by mx.example.test with LMTP',
        '    id 0b2f6a0e-3c1d-4a57-9a54-0f9a1d2c3b4e for <alice@EXAMPLE.test>;',
        '    Mon, 03 Nov 2025 04:05:06 +0000',
        '',
      ].join('\r\n'),
    )
  })

  test('the null sender, an IPv6 peer, a Unix socket', () => {
    expect(headersOf({ sender: '' })).toContain('Return-Path: <>\r\n')
    expect(headersOf({ clientAddress: '2001:db8::1' })).toContain('([IPv6:2001:db8::1])')
    expect(unfolded(headersOf({ clientAddress: undefined }))).toContain(
      'from mta.sender.example by mx.example.test',
    )
  })

  test('an address literal in LHLO stays, what is neither name nor literal is not repeated', () => {
    expect(headersOf({ heloName: '[IPv6:2001:db8::1]' })).toContain('from [IPv6:2001:db8::1]')
    for (const heloName of ['a(b', 'x\r\nBcc: y', 'mañana', '', 'a;b', 'x'.repeat(256)])
      expect(headersOf({ heloName })).toContain('Received: from unknown')
  })

  test('nothing in an address ends its line or its brackets', () => {
    const evil = 'a\r\nBcc:x@y.example>\u0000\u2028<\tb@sender.example'
    const lines = headersOf({ sender: evil }, evil).split('\r\n')
    expect(lines.filter((line) => /^\S/.test(line)).map((line) => line.split(':')[0])).toEqual([
      'Return-Path',
      'Delivered-To',
      'Received',
    ])
    expect(lines[0]).toBe('Return-Path: <aBcc:x@y.exampleb@sender.example>')
  })

  test('a domain is written in ASCII, a local part as it came', () => {
    expect(headersOf({ sender: 'jörg@bücher.example', protocol: 'UTF8LMTP' })).toContain(
      'Return-Path: <jörg@xn--bcher-kva.example>\r\n',
    )
  })

  test('lines are at most 78 columns wherever words allow it', () => {
    const hostname = `${'h'.repeat(60)}.example.test`
    const text = headersOf({ hostname, heloName: `${'c'.repeat(60)}.example` })
    for (const line of text.split('\r\n')) expect(line.length).toBeLessThanOrEqual(78)
    expect(unfolded(text)).toContain(`by ${hostname} with LMTP`)
    const long = headersOf({ sender: `${'s'.repeat(64)}@${'d'.repeat(63)}.example` })
    expect(long).toContain(`Return-Path:\r\n    <${'s'.repeat(64)}@`)
  })
})

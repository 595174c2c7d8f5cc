/** Of whose date a message is: the server's that took it in, and the sender's only without it. */
import { expect, test } from 'vitest'
import { receivedDate } from '../../../src/mail/delivery/received-date.ts'

const NOW = new Date('2026-11-23T12:00:00Z')

const dateOf = (...lines: string[]): string | undefined =>
  receivedDate(
    Buffer.from(`${lines.join('\r\n')}\r\n\r\nDate: Mon, 1 Jan 2001 00:00:00 GMT\r\n`),
    NOW,
  )?.toISOString()

test.each([
  [['Date: Tue, 2 Jan 2024 03:04:05 +0100'], '2024-01-02T02:04:05.000Z'],
  [['date: 2 Jan 2024 03:04 GMT'], '2024-01-02T03:04:00.000Z'],
  [
    ['Received: a; Wed, 3 Jan 2024 00:00:00 +0000', 'Date: Tue, 2 Jan 2024 00:00:00 +0000'],
    '2024-01-03T00:00:00.000Z',
  ],
  [
    ['Received: last; 4 Jan 2024 00:00:00 +0000', 'Received: first; 3 Jan 2024 00:00:00 +0000'],
    '2024-01-04T00:00:00.000Z',
  ],
  [
    ['Received: by a (for <b@c>);', '\tThu, 4 Jan 2024 01:00:00 -0500 (EST)'],
    '2024-01-04T06:00:00.000Z',
  ],
  [['Received: no date', 'Date: Tue, 2 Jan 2024 00:00:00 +0000'], '2024-01-02T00:00:00.000Z'],
  [
    ['Received: a; Wed, 3 Jan 2099 00:00:00 +0000', 'Date: Tue, 2 Jan 2024 00:00:00 +0000'],
    '2024-01-02T00:00:00.000Z',
  ],
  [['Date: Mon, 23 Nov 2026 20:00:00 +0000'], '2026-11-23T12:00:00.000Z'],
  [['Date: Tue, 2 Jan 1900 00:00:00 +0000'], undefined],
  [['Date: 99 Jan 2024 99:99:99 +0000'], undefined],
  [['Date: Tue, 2 Jan 2024 03:04:05 XYZ'], '2024-01-02T03:04:05.000Z'],
  [['Date: yesterday'], undefined],
  [['Subject: none'], undefined],
  [['X-Date: Tue, 2 Jan 2024 00:00:00 +0000'], undefined],
])('%j', (lines, expected) => {
  expect(dateOf(...lines)).toBe(expected)
})

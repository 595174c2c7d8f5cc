/** Any input at any cut: the session never throws, speaks only POP3, and does not feel the cuts. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Fixtures } from '../dialogs/dialog.ts'
import { MemoryConnection } from '../dialogs/memory-peer.ts'
import { cut, cuts, storedMessages } from './arbitraries.ts'
import { FUZZ } from './seed.ts'

const verbs = fc.constantFrom(
  ...['USER', 'PASS', 'APOP', 'QUIT', 'STAT', 'LIST', 'RETR', 'DELE', 'NOOP', 'RSET', 'TOP'],
  ...['UIDL', 'CAPA', 'STLS', 'AUTH', 'retr', 'Dele', 'GET', 'X', ''],
)
const words = fc.constantFrom(
  ...['mrose', 'tanstaaf', '0', '1', '2', '3', '99', '-1', '+1', '1x', '4294967297', ' ', '\0'],
  ...['99999999999999999999', 'c4c9334bac560ecc979e58001b3e22fb', '\xff', '\r', 'a'.repeat(260)],
)
const lineEnds = fc.constantFrom('\r\n', '\r\n', '\r\n', '\r\n', '\n', '\r', '')

const commands = fc
  .tuple(verbs, fc.array(words, { maxLength: 3 }), lineEnds)
  .map(([verb, rest, end]) => [verb, ...rest].join(' ') + end)
const goodCommands = fc.constantFrom(
  ...['STAT\r\n', 'LIST\r\n', 'UIDL\r\n', 'RETR 1\r\n', 'RETR 2\r\n', 'DELE 1\r\n', 'RSET\r\n'],
  ...['DELE 2\r\n', 'TOP 1 1\r\n', 'TOP 2 0\r\n', 'CAPA\r\n', 'NOOP\r\n', 'LIST 2\r\n'],
)
const noise = fc
  .uint8Array({ maxLength: 300 })
  .map((octets) => Buffer.from(octets).toString('latin1'))
const login = fc.constantFrom('', 'USER mrose\r\nPASS tanstaaf\r\n')

/** A conversation of the client: perhaps a login, then anything. */
const inputs = fc
  .tuple(
    login,
    fc.array(
      fc.oneof(
        { weight: 6, arbitrary: goodCommands },
        { weight: 3, arbitrary: commands },
        { weight: 1, arbitrary: noise },
      ),
      { maxLength: 40 },
    ),
  )
  .map(([start, rest]) => Buffer.from(start + rest.join(''), 'latin1'))

const maildrops = fc.array(storedMessages, { maxLength: 3 })

function fixturesOf(contents: readonly Buffer[]): Fixtures {
  return {
    user: 'mrose',
    password: 'tanstaaf',
    isSuspended: false,
    isInUse: false,
    isPlaintextAllowed: true,
    isApopOffered: true,
    timestamp: undefined,
    messages: contents.map((content) => ({ content, uniqueId: undefined })),
    faults: [],
  }
}

/** Everything that can be seen from outside: what was sent, asked, and why it closed. */
function observe(contents: readonly Buffer[], chunks: readonly Buffer[]) {
  const connection = new MemoryConnection(fixturesOf(contents), 11)
  for (const chunk of chunks) connection.push(Buffer.from(chunk))
  return {
    output: connection.takeOutput().toString('latin1'),
    asked: connection.asked.map((action) =>
      action.kind === 'commit' ? `commit ${action.uids.join(' ')}` : action.kind,
    ),
    closeReason: connection.closeReason,
  }
}

test('cuts do not change what the session does', () => {
  fc.assert(
    fc.property(maildrops, inputs, cuts, (contents, input, sizes) => {
      const whole = observe(contents, [input])
      expect(observe(contents, cut(input, sizes))).toEqual(whole)
      expect(observe(contents, cut(input, [1]))).toEqual(whole)
    }),
    FUZZ,
  )
})

const STATUS_LINE = /^(\+OK|-ERR)( [\x20-\x7e]*)?$/
/**
 * Replies that several lines follow; LIST's own is told from PASS's and RSET's by its beginning.
 */
const MULTI_LINE = [
  /^\+OK \d+ octets$/,
  /^\+OK top of message follows$/,
  /^\+OK \d+ messages? \(\d+ octets\)$/,
  /^\+OK unique-id listing follows$/,
  /^\+OK capability list follows$/,
]

/** Reads replies as a client does. @returns the first thing that is none, or undefined */
function findNonsense(output: string): string | undefined {
  const lines = output.split('\r\n')
  if (lines.pop() !== '') return 'an unfinished line'
  for (let index = 0; index < lines.length; index += 1) {
    const line = lines[index] ?? ''
    if (!STATUS_LINE.test(line) || line.length > 510) return line
    if (!MULTI_LINE.some((pattern) => pattern.test(line))) continue
    index = lines.indexOf('.', index)
    if (index === -1) return 'an unfinished reply'
  }
  return undefined
}

test('whatever comes in, what goes out is POP3', () => {
  fc.assert(
    fc.property(maildrops, inputs, (contents, input) => {
      expect(findNonsense(observe(contents, [input]).output)).toBeUndefined()
    }),
    FUZZ,
  )
})

test('every line gets one reply, until the session closes', () => {
  const lines = fc.array(fc.oneof(goodCommands, commands), { maxLength: 9 })
  fc.assert(
    fc.property(lines, (texts) => {
      const complete = texts.filter((text) => text.endsWith('\n'))
      const input = Buffer.from(complete.join(''), 'latin1')
      const { output, closeReason } = observe([], [input])
      const replyCount = output.split('\r\n').filter((line) => STATUS_LINE.test(line)).length - 1
      if (closeReason === undefined) expect(replyCount).toBe(complete.length)
      else expect(replyCount).toBeLessThanOrEqual(complete.length)
    }),
    FUZZ,
  )
})

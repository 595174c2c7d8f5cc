/** Any input at any cut: the session never throws, speaks only POP3, and does not feel the cuts. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SASL_MECHANISMS } from '../../src/protocol/pop3/actions.ts'
import { defaultFixtures, type Fixtures } from '../dialogs/dialog.ts'
import { MemoryConnection } from '../dialogs/memory-peer.ts'
import { cut, cuts, storedMessages } from './arbitraries.ts'
import { FUZZ } from './seed.ts'

function base64(text: string): string {
  return Buffer.from(text, 'latin1').toString('base64')
}

const verbs = fc.constantFrom(
  ...['USER', 'PASS', 'APOP', 'QUIT', 'STAT', 'LIST', 'RETR', 'DELE', 'NOOP', 'RSET', 'TOP'],
  ...['UIDL', 'CAPA', 'STLS', 'AUTH', 'LANG', 'UTF8', 'retr', 'Dele', 'auth', 'GET', 'X', ''],
)
const words = fc.constantFrom(
  ...['mrose', 'tanstaaf', '0', '1', '2', '3', '99', '-1', '+1', '1x', '4294967297', ' ', '\0'],
  ...['99999999999999999999', 'c4c9334bac560ecc979e58001b3e22fb', '\xff', '\r', 'a'.repeat(260)],
  ...['PLAIN', 'LOGIN', 'SCRAM-SHA-256', 'SCRAM-SHA-256-PLUS', 'OAUTHBEARER', 'XOAUTH2'],
  ...['EXTERNAL', '=', '*', 'de', 'en-GB', base64('\0mrose\0tanstaaf'), 'A'.repeat(17_000)],
)
const lineEnds = fc.constantFrom('\r\n', '\r\n', '\r\n', '\r\n', '\n', '\r', '')

const commands = fc
  .tuple(verbs, fc.array(words, { maxLength: 3 }), lineEnds)
  .map(([verb, rest, end]) => [verb, ...rest].join(' ') + end)
const scramFirst = base64('n,,n=mrose,r=rOprNGfwEbeRWgbNEkqO')
/** Of AUTH, each of one line; the lines of an exchange meet by chance. */
const saslLines = fc.constantFrom(
  ...[
    'AUTH\r\n',
    'AUTH PLAIN\r\n',
    `AUTH PLAIN ${base64('\0mrose\0tanstaaf')}\r\n`,
    'AUTH LOGIN\r\n',
  ],
  ...[`AUTH SCRAM-SHA-256 ${scramFirst}\r\n`, `${scramFirst}\r\n`, '*\r\n', '\r\n', '=\r\n'],
  ...[`AUTH XOAUTH2 ${base64('user=mrose\x01auth=Bearer no\x01\x01')}\r\n`, 'AUTH EXTERNAL =\r\n'],
  ...[`${base64('mrose')}\r\n`, `${base64('tanstaaf')}\r\n`, `${base64('\0mrose\0tanstaaf')}\r\n`],
  ...['LANG de\r\n', 'LANG\r\n', 'UTF8\r\n', 'USER mrose\r\n', 'PASS tanstaaf\r\n', 'CAPA\r\n'],
)
const goodCommands = fc.constantFrom(
  ...['STAT\r\n', 'LIST\r\n', 'UIDL\r\n', 'RETR 1\r\n', 'RETR 2\r\n', 'DELE 1\r\n', 'RSET\r\n'],
  ...['DELE 2\r\n', 'TOP 1 1\r\n', 'TOP 2 0\r\n', 'CAPA\r\n', 'NOOP\r\n', 'LIST 2\r\n'],
)
const noise = fc
  .uint8Array({ maxLength: 300 })
  .map((octets) => Buffer.from(octets).toString('latin1'))
const login = fc.constantFrom('', '', 'USER mrose\r\nPASS tanstaaf\r\n')

/** A conversation of the client: perhaps a login, then anything. */
const inputs = fc
  .tuple(
    login,
    fc.array(
      fc.oneof(
        { weight: 6, arbitrary: goodCommands },
        { weight: 3, arbitrary: commands },
        { weight: 3, arbitrary: saslLines },
        { weight: 1, arbitrary: noise },
      ),
      { maxLength: 40 },
    ),
  )
  .map(([start, rest]) => Buffer.from(start + rest.join(''), 'latin1'))

const maildrops = fc.array(storedMessages, { maxLength: 3 })

function fixturesOf(contents: readonly Buffer[]): Fixtures {
  return {
    ...defaultFixtures(),
    isTlsOffered: true,
    saslMechanisms: [...SASL_MECHANISMS],
    hasCertificate: true,
    isUtf8Asked: true,
    messages: contents.map((content) => ({ content, uniqueId: undefined })),
  }
}

/**
 * Everything that can be seen from outside: what was sent, asked, and why it closed. TLS, if it is
 * asked for, is there when all of `chunks` were pushed; `underTls` comes then.
 */
function observe(
  contents: readonly Buffer[],
  chunks: readonly Buffer[],
  underTls: readonly Buffer[] = [],
) {
  const connection = new MemoryConnection(fixturesOf(contents), 11)
  for (const chunk of chunks) connection.push(Buffer.from(chunk))
  let inTheClear: Buffer = Buffer.alloc(0)
  if (connection.isSecuring) {
    inTheClear = connection.takeOutput()
    connection.secure()
    for (const chunk of underTls) connection.push(Buffer.from(chunk))
  }
  return {
    inTheClear: inTheClear.toString('utf8'),
    output: connection.takeOutput().toString('utf8'),
    asked: connection.asked.map((action) =>
      action.kind === 'commit' ? `commit ${action.uids.join(' ')}` : action.kind,
    ),
    closeReason: connection.closeReason,
  }
}

test('cuts do not change what the session does', () => {
  fc.assert(
    fc.property(maildrops, inputs, inputs, cuts, (contents, input, underTls, sizes) => {
      const whole = observe(contents, [input], [underTls])
      const pieces = observe(contents, cut(input, sizes), cut(underTls, sizes))
      expect(pieces).toEqual(whole)
      expect(observe(contents, cut(input, [1]), cut(underTls, [1]))).toEqual(whole)
    }),
    FUZZ,
  )
})

const STATUS_LINE = /^(\+OK|-ERR)( [\x20-\x7eäöüß]*)?$/
const CHALLENGE = /^\+ [A-Za-z0-9+/=]*$/
/**
 * Replies that several lines follow; LIST's own is told from PASS's and RSET's by its beginning.
 */
const MULTI_LINE = [
  /^\+OK \d+ (octets|Oktette)$/,
  /^\+OK \d+ (messages?|Nachricht(en)?) \(\d+ (octets|Oktette)\)$/,
  /^\+OK .* (follows?|folgt|folgen)$/,
]

/** Reads replies as a client does. @returns the first thing that is none, or undefined */
function findNonsense(output: string): string | undefined {
  const lines = output.split('\r\n')
  if (lines.pop() !== '') return 'an unfinished line'
  for (let index = 0; index < lines.length; index += 1) {
    const line = lines[index] ?? ''
    if (CHALLENGE.test(line)) continue
    if (!STATUS_LINE.test(line) || line.length > 510) return line
    if (!MULTI_LINE.some((pattern) => pattern.test(line))) continue
    index = lines.indexOf('.', index)
    if (index === -1) return 'an unfinished reply'
  }
  return undefined
}

test('whatever comes in, what goes out is POP3', () => {
  fc.assert(
    fc.property(maildrops, inputs, inputs, (contents, input, underTls) => {
      const { inTheClear, output } = observe(contents, [input], [underTls])
      expect(findNonsense(inTheClear)).toBeUndefined()
      expect(findNonsense(output)).toBeUndefined()
    }),
    FUZZ,
  )
})

test('every line gets one reply, until the session closes or TLS begins', () => {
  const lines = fc.array(fc.oneof(goodCommands, commands, saslLines), { maxLength: 9 })
  fc.assert(
    fc.property(lines, (texts) => {
      const complete = texts.filter((text) => text.endsWith('\n'))
      const input = Buffer.from(complete.join(''), 'latin1')
      const { output, closeReason, asked } = observe([], [input])
      const replies = output.split('\r\n').filter(isReply)
      const isCutShort = closeReason !== undefined || asked.includes('start-tls')
      if (isCutShort) expect(replies.length - 1).toBeLessThanOrEqual(complete.length)
      else expect(replies.length - 1).toBe(complete.length)
    }),
    FUZZ,
  )
})

function isReply(line: string): boolean {
  return STATUS_LINE.test(line) || CHALLENGE.test(line)
}

test('no octet that came before TLS is obeyed under it', () => {
  fc.assert(
    fc.property(inputs, inputs, inputs, cuts, (before, injected, underTls, sizes) => {
      const start = Buffer.concat([before, Buffer.from('\r\nSTLS\r\n')])
      const clean = observe([], [start], [underTls])
      const along = observe([], [Buffer.concat([start, injected])], [underTls])
      const meanwhile = observe([], [start, ...cut(injected, sizes)], [underTls])
      // Where STLS did not come to be obeyed there is nothing to tell.
      fc.pre(clean.asked.includes('start-tls'))
      expect(along).toEqual(clean)
      expect(meanwhile).toEqual(clean)
    }),
    FUZZ,
  )
})

test('nothing that was said before TLS is known under it', () => {
  const said = fc.constantFrom(
    ...['USER mrose\r\n', 'LANG de\r\n', 'UTF8\r\n', 'CAPA\r\n', 'AUTH\r\n', 'AUTH PLAIN\r\n*\r\n'],
    ...[`AUTH SCRAM-SHA-256 ${scramFirst}\r\n*\r\n`, `AUTH LOGIN ${base64('mrose')}\r\n*\r\n`],
  )
  const few = fc.array(said, { maxLength: 9 }).map((lines) => Buffer.from(lines.join('')))
  const stls = Buffer.from('STLS\r\n')
  fc.assert(
    fc.property(maildrops, few, inputs, (contents, before, underTls) => {
      const said = observe(contents, [before, stls], [underTls])
      const unsaid = observe(contents, [stls], [underTls])
      const asked = said.asked.slice(said.asked.indexOf('start-tls'))
      expect({ output: said.output, asked }).toEqual({
        output: unsaid.output,
        asked: unsaid.asked,
      })
    }),
    FUZZ,
  )
})

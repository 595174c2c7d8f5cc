/** What dialogs cannot show: when the session asks, waits, holds back, and stays silent. */
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import type { Pop3Action, Pop3Outcome, Pop3Parameters } from '../../../src/protocol/pop3/actions.ts'
import { Pop3Session } from '../../../src/protocol/pop3/session.ts'

const PARAMETERS: Pop3Parameters = {
  hostname: 'dewey',
  apopTimestamp: '<1896.697170952@dbc.mtview.ca.us>',
  isPlaintextAllowed: true,
  isTlsOffered: false,
  saslMechanisms: [],
  channelBinding: undefined,
  policy: { loginDelaySeconds: 0, expireDays: undefined },
  isPolicyByUser: false,
  isUtf8Asked: false,
  implementation: 'Popgres',
}

type Opened = Extract<Pop3Outcome, { kind: 'opened' }>

function opened(messageCount: number, octets: number): Opened {
  const { policy } = PARAMETERS
  const rest = { displayName: 'mrose', uidPrefix: '17.', hasUniqueIds: false, policy }
  return { kind: 'opened', messageCount, octets, ...rest, serverSignature: undefined }
}

/** Pulls until undefined; texts as text, other actions by kind. */
function pull(session: Pop3Session): string[] {
  const pulled: string[] = []
  for (let action = session.next(); action !== undefined; action = session.next()) {
    pulled.push(action.kind === 'send' ? action.bytes.toString('latin1') : textOf(action))
  }
  return pulled
}

function textOf(action: Pop3Action): string {
  return action.kind === 'close' ? `close ${action.reason}` : action.kind
}

function say(session: Pop3Session, text: string): string[] {
  session.receive(Buffer.from(text, 'latin1'))
  return pull(session)
}

/** A session after the login, with messages of these sizes, the listing not loaded. */
function loggedIn(sizes: readonly number[]): Pop3Session {
  const session = new Pop3Session(PARAMETERS)
  say(session, 'USER mrose\r\nPASS tanstaaf\r\n')
  session.resume(
    opened(
      sizes.length,
      sizes.reduce((sum, size) => sum + size, 0),
    ),
  )
  pull(session)
  return session
}

function listed(sizes: readonly number[]): Pop3Outcome {
  const uids = Int32Array.from(sizes, (_, index) => 501 + index)
  return { kind: 'listed', uids, octets: Int32Array.from(sizes) }
}

test('the greeting comes first and unasked', () => {
  const session = new Pop3Session(PARAMETERS)
  expect(pull(session)).toEqual([`+OK POP3 server ready ${PARAMETERS.apopTimestamp}\r\n`])
})

test('while an outcome is owed nothing more is done', () => {
  const session = new Pop3Session(PARAMETERS)
  pull(session)
  expect(say(session, 'USER mrose\r\nPASS tanstaaf\r\nSTAT\r\nQUIT\r\n')).toEqual([
    '+OK send PASS\r\n',
    'login',
  ])
  expect(say(session, 'NOOP\r\n')).toEqual([])
  session.resume(opened(2, 320))
  expect(pull(session)).toEqual([
    "+OK mrose's maildrop has 2 messages (320 octets)\r\n+OK 2 320\r\n",
    'commit',
  ])
})

test('input that piles up behind an owed outcome shows as full', () => {
  const session = loggedIn([120])
  expect(session.isFull).toBe(false)
  say(session, 'QUIT\r\n')
  say(session, 'NOOP\r\n'.repeat(6000))
  expect(session.isFull).toBe(true)
})

test('a poll never asks for the list', () => {
  const session = loggedIn([120, 200])
  expect(say(session, 'STAT\r\nNOOP\r\nRSET\r\nCAPA\r\nQUIT\r\n').at(-1)).toBe('commit')
})

test('the list is asked for once, by the first command that names messages', () => {
  for (const first of ['LIST', 'LIST 1', 'UIDL', 'UIDL 2', 'DELE 1', 'RETR 1', 'TOP 1 0']) {
    const session = loggedIn([120, 200])
    expect(say(session, `${first}\r\n`)).toEqual(['list'])
    session.resume(listed([120, 200]))
    pull(session)
    if (/RETR|TOP/.test(first)) session.resume({ kind: 'retrieved' })
    expect(say(session, 'LIST 2\r\nDELE 2\r\n')).toEqual(['+OK 2 200\r\n+OK message 2 deleted\r\n'])
  }
})

test('a list that could not be read is asked for again', () => {
  const session = loggedIn([120])
  expect(say(session, 'LIST 1\r\n')).toEqual(['list'])
  session.resume({ kind: 'unavailable', reason: 'temporary' })
  expect(pull(session)[0]).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(say(session, 'LIST 1\r\n')).toEqual(['list'])
  session.resume(listed([120]))
  expect(pull(session)).toEqual(['+OK 1 120\r\n'])
})

test('a long listing is made only as it is pulled, and in order', () => {
  const sizes = new Array<number>(100_000).fill(1234)
  const session = loggedIn(sizes)
  expect(say(session, 'LIST\r\nUIDL\r\nSTAT\r\n')).toEqual(['list'])
  session.resume(listed(sizes))
  const pieces = pull(session)
  expect(pieces.length).toBeGreaterThan(30)
  expect(Math.max(...pieces.map((piece) => piece.length))).toBeLessThanOrEqual(65_536)
  const lines = pieces.join('').split('\r\n')
  expect(lines).toHaveLength(2 * 100_002 + 2)
  expect(lines.at(-2)).toBe('+OK 100000 123400000')
})

test('a message is named by uid, with its header and the lines wanted', () => {
  const session = loggedIn([120, 200])
  say(session, 'DELE 1\r\n')
  session.resume(listed([120, 200]))
  pull(session)
  session.receive(Buffer.from('RETR 2\r\nTOP 2 3\r\nTOP 2 200\r\n'))
  const asked: Pop3Action[] = []
  for (let action = session.next(); action !== undefined; action = session.next()) {
    asked.push(action)
    session.resume({ kind: 'retrieved' })
  }
  const top = Buffer.from('+OK top of message follows\r\n')
  const message = { kind: 'retrieve', uid: 502, octets: 200, isAsciiOnly: false }
  expect(asked).toEqual([
    { ...message, header: Buffer.from('+OK 200 octets\r\n'), bodyLines: undefined },
    { ...message, header: top, bodyLines: 3 },
    { ...message, header: top, bodyLines: undefined },
  ])
})

test('an end waits for the outcome that is owed', () => {
  const session = loggedIn([120, 200])
  say(session, 'DELE 1\r\n')
  session.resume(listed([120, 200]))
  pull(session)
  expect(say(session, 'RETR 2\r\nNOOP\r\n')).toHaveLength(1)
  session.end('drain')
  expect(pull(session)).toEqual([])
  session.resume({ kind: 'unavailable', reason: 'gone' })
  expect(pull(session)).toEqual([
    '-ERR message is gone\r\n-ERR [SYS/TEMP] server is shutting down, try again later\r\n',
    'close drain',
  ])
  expect(say(session, 'NOOP\r\n')).toEqual([])
})

test('an end waits for the end of a listing', () => {
  const sizes = new Array<number>(20_000).fill(1234)
  const session = loggedIn(sizes)
  say(session, 'LIST\r\nSTAT\r\n')
  session.resume(listed(sizes))
  const first = session.next()
  session.end('lease-lost')
  const pieces = pull(session)
  expect(first?.kind).toBe('send')
  const end = pieces.slice(0, -1).join('').slice(-100)
  expect(end).toMatch(/\r\n\.\r\n-ERR \[SYS\/TEMP\] this session was ended by the server\r\n$/)
  expect(pieces.at(-1)).toBe('close lease-lost')
})

test('an end during QUIT lets QUIT answer, and only it', () => {
  const session = loggedIn([120])
  expect(say(session, 'QUIT\r\n')).toEqual(['commit'])
  session.end('lease-lost')
  session.resume({ kind: 'committed' })
  expect(pull(session)).toEqual([
    '+OK dewey POP3 server signing off (1 message left)\r\n',
    'close quit',
  ])
})

test('after the peer has gone nothing is said, whatever was under way', () => {
  const session = loggedIn([120])
  expect(say(session, 'QUIT\r\n')).toEqual(['commit'])
  session.end('gone')
  session.resume({ kind: 'committed' })
  expect(pull(session)).toEqual([])
  expect(say(session, 'NOOP\r\n')).toEqual([])
  const late = loggedIn([120])
  expect(say(late, 'QUIT\r\n')).toEqual(['commit'])
  late.end('gone')
  late.end('drain')
  late.resume({ kind: 'committed' })
  expect(pull(late)).toEqual([])
  const other = loggedIn([120])
  other.receive(Buffer.from('NOOP\r\nQUIT\r\n'))
  other.end('gone')
  other.end('drain')
  expect(pull(other)).toEqual([])
})

test('an outcome that nobody asked for, or of the wrong kind, is a bug', () => {
  const session = loggedIn([120])
  expect(() => session.resume({ kind: 'retrieved' })).toThrow('outcome')
  say(session, 'QUIT\r\n')
  expect(() => session.resume({ kind: 'retrieved' })).toThrow('commit')
})

test('a password cannot be printed by accident and outlives the input', () => {
  const session = new Pop3Session(PARAMETERS)
  pull(session)
  const input = Buffer.from('USER mrose\r\nPASS tanstaaf\r\n')
  session.receive(input)
  const [, login] = [session.next(), session.next()]
  input.fill(0)
  expect(inspect(login, { depth: 9 })).not.toContain('tanstaaf')
  expect(JSON.stringify(login)).not.toContain('tanstaaf')
  if (login?.kind !== 'login' || login.attempt.mechanism !== 'password') throw new Error('no login')
  expect(login.attempt.password.reveal().toString()).toBe('tanstaaf')
})

test('whose name is not plain ASCII is not greeted by it', () => {
  for (const displayName of ['grüße', 'a\r\n+OK', '']) {
    const session = new Pop3Session(PARAMETERS)
    say(session, 'USER x\r\nPASS y\r\n')
    session.resume({ ...opened(0, 0), displayName })
    expect(pull(session)).toEqual(['+OK maildrop has 0 messages (0 octets)\r\n'])
  }
})

test('replies of many commands in one segment leave together', () => {
  const session = loggedIn([120])
  expect(say(session, 'NOOP\r\n'.repeat(100))).toEqual(['+OK\r\n'.repeat(100)])
})

test('replies that nobody pulls stop the commands that make them', () => {
  const session = loggedIn([120])
  session.receive(Buffer.from('CAPA\r\n'.repeat(10_000)))
  const first = session.next()
  expect(first?.kind === 'send' && first.bytes.length).toBeLessThan(40_000)
  const rest = pull(session).join('')
  expect(rest.endsWith('.\r\n')).toBe(true)
  expect(session.isFull).toBe(false)
})

const SECURED: Pop3Outcome = {
  kind: 'secured',
  parameters: { ...PARAMETERS, saslMechanisms: ['PLAIN'] },
}

/** A session that can start TLS, greeted. */
function greeted(): Pop3Session {
  const session = new Pop3Session({ ...PARAMETERS, isTlsOffered: true, saslMechanisms: ['PLAIN'] })
  pull(session)
  return session
}

test('nothing that was sent along with STLS is obeyed after it (CVE-2011-0411, CVE-2021-38084)', () => {
  const session = greeted()
  const injected = 'STLS\r\nUSER mallory\r\nPASS secret\r\nSTAT\r\nQU'
  expect(say(session, injected)).toEqual(['+OK begin TLS negotiation\r\n', 'start-tls'])
  session.resume(SECURED)
  expect(pull(session)).toEqual([])
  expect(say(session, 'IT\r\n')).toEqual(['-ERR unknown command\r\n'])
})

test('nothing that arrives before TLS is there is heard, whatever the owner does', () => {
  const session = greeted()
  say(session, 'STLS\r\n')
  expect(say(session, 'USER mallory\r\nPASS secret\r\n')).toEqual([])
  session.resume(SECURED)
  expect(pull(session)).toEqual([])
  expect(say(session, 'PASS secret\r\n')).toEqual(['-ERR send USER first\r\n'])
})

test('a line that STLS cut off is not skipped after it', () => {
  const session = greeted()
  say(session, `STLS\r\n${'x'.repeat(9_000)}`)
  session.resume(SECURED)
  expect(say(session, 'CAPA\r\n').join('')).toContain('SASL PLAIN')
})

test('an end during the handshake is told under TLS', () => {
  const session = greeted()
  say(session, 'STLS\r\n')
  session.end('drain')
  expect(pull(session)).toEqual([])
  session.resume(SECURED)
  expect(pull(session).at(-1)).toBe('close drain')
})

test('an end does not wait for a response that may never come', () => {
  const session = greeted()
  expect(say(session, 'AUTH PLAIN\r\n')).toEqual(['+ \r\n'])
  session.end('drain')
  expect(pull(session).at(-1)).toBe('close drain')
})

test('a long line of AUTH that is not whole yet does not show as full', () => {
  const session = greeted()
  expect(say(session, `AUTH PLAIN ${'A'.repeat(16_000)}`)).toEqual([])
  expect(session.isFull).toBe(false)
  expect(say(session, '\r\n')).toHaveLength(1)
})

test('responses that come along with AUTH wait for what is owed', () => {
  const session = greeted()
  const proof = Buffer.from('\0mrose\0tanstaaf').toString('base64')
  expect(say(session, `AUTH PLAIN\r\n${proof}\r\nSTAT\r\n`)).toEqual(['+ \r\n', 'login'])
  session.resume(opened(2, 320))
  expect(pull(session).join('')).toMatch(/\(320 octets\)\r\n\+OK 2 320\r\n$/)
})

test('a password in AUTH cannot be printed by accident', () => {
  const session = greeted()
  const proof = Buffer.from('\0mrose\0tanstaaf').toString('base64')
  session.receive(Buffer.from(`AUTH PLAIN ${proof}\r\n`))
  const login = session.next()
  expect(login?.kind).toBe('login')
  expect(inspect(login, { depth: 9 })).not.toMatch(/tanstaaf|AG1yb3Nl/)
  expect(JSON.stringify(login)).not.toMatch(/tanstaaf|AG1yb3Nl/)
})

test('salt that cannot be had is a login that failed by our fault', () => {
  const session = new Pop3Session({ ...PARAMETERS, saslMechanisms: ['SCRAM-SHA-256'] })
  pull(session)
  const first = Buffer.from('n,,n=user,r=rOprNGfwEbeRWgbNEkqO').toString('base64')
  for (let attempt = 0; attempt < 6; attempt += 1) {
    expect(say(session, `AUTH SCRAM-SHA-256 ${first}\r\n`)).toEqual(['scram-salt'])
    session.resume({ kind: 'login-refused', reason: 'temporary' })
    expect(pull(session).join('')).toMatch(/^-ERR \[SYS\/TEMP\] /)
  }
})

test('outcomes of the wrong kind are bugs: of start-tls and of the salt', () => {
  const session = greeted()
  say(session, 'STLS\r\n')
  expect(() => session.resume({ kind: 'committed' })).toThrow('secured')
  const other = new Pop3Session({ ...PARAMETERS, saslMechanisms: ['SCRAM-SHA-256'] })
  pull(other)
  say(other, `AUTH SCRAM-SHA-256 ${Buffer.from('n,,n=u,r=rOprNGfw').toString('base64')}\r\n`)
  expect(() => other.resume({ kind: 'committed' })).toThrow('scram-salt')
})

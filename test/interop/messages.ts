/**
 * The messages that the clients fetch, each with something that servers get wrong, and their way
 * in: swaks, with the octets after DATA exactly ours.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { CHUNK_OCTETS } from '../../src/storage/bodies.ts'
import { runClient } from './clients.ts'
import { DOMAIN, HOST, type InteropServer } from './server.ts'

const SENDER = 'sender@elsewhere.test'

const HEAD = [
  'From: Sender <sender@elsewhere.test>',
  'To: someone@interop.test',
  'Date: Tue, 02 Jan 2024 03:04:05 +0000',
]

function message(name: string, body: string, head = HEAD): Buffer {
  const fields = [...head, `Subject: ${name}`, `Message-ID: <${name}@elsewhere.test>`]
  return Buffer.from(`${fields.join('\r\n')}\r\n\r\n${body}`, 'latin1')
}

/** Of two stored chunks, the second of which begins with a dot at the beginning of a line. */
function dotAtSeam(): Buffer {
  const head = message('seam', '')
  const line = `${'.'.repeat(62)}\r\n`
  const room = CHUNK_OCTETS - head.length - 2
  const text = line.repeat(Math.floor(room / line.length)) + 'x'.repeat(room % line.length)
  return Buffer.concat([head, Buffer.from(`${text}\r\n.\r\n.y\r\n`, 'latin1')])
}

/** Name → octets; every line ends in CRLF, as LMTP has it. */
export const MESSAGES: ReadonlyMap<string, Buffer> = new Map([
  ['plain', message('plain', 'Hello,\r\n\r\nworld.\r\n')],
  ['dots', message('dots', '.\r\n..\r\n.leading\r\n...\r\nx.\r\n.\r\n')],
  ['eight-bit', message('eight-bit', 'caf\xe9 \xff\xfe \x80\r\n\xc3\xa9\r\n')],
  ['white-space', message('white-space', ' \r\n\t\r\n  trailing  \r\n\r\n\r\n')],
  ['no-body', message('no-body', '')],
  ['long-line', message('long-line', `${'0123456789'.repeat(99)}\r\n`)],
  ['dot-field', message('dot-field', '.\r\n', ['.: a dot is the first octet', ...HEAD])],
  ['seam', dotAtSeam()],
])

/** Delivers over LMTP what the names stand for. */
export async function deliver(
  server: InteropServer,
  addresses: string | readonly string[],
  names: Iterable<string> = MESSAGES.keys(),
): Promise<void> {
  for (const name of names) {
    const result = await swaks(server, [addresses].flat(), MESSAGES.get(name) ?? Buffer.alloc(0))
    expect(result.stdout.toString() + result.stderr).toContain('250 ')
    expect(result.status).toBe(0)
  }
}

/** One transaction. swaks neither adds nor changes an octet of the message. */
export function swaks(server: InteropServer, addresses: readonly string[], octets: Buffer) {
  const stuffed = octets.toString('latin1').replace(/^\./gm, '..')
  const file = join(server.directory, `data-${process.hrtime.bigint()}`)
  writeFileSync(file, `${stuffed}.\r\n`, 'latin1')
  return runClient('swaks', [
    ...['--protocol', 'LMTP', '--server', HOST, '--port', String(server.lmtpPort)],
    ...['--helo', 'mta.elsewhere.test', '--from', SENDER, '--to', addresses.join(',')],
    ...['--no-data-fixup', '--data', `@${file}`],
  ])
}

/**
 * What a client fetched must be the trace fields that the server put in front, then the message.
 * @param lineEnd of the client's copy: some keep CRLF, some write LF
 */
export function expectDelivered(
  fetched: Buffer,
  address: string,
  name: string,
  lineEnd: '\r\n' | '\n' = '\r\n',
): void {
  const text = fetched.toString('latin1')
  const crlf = lineEnd === '\n' ? text.replaceAll('\n', '\r\n') : text
  const delivered = MESSAGES.get(name)?.toString('latin1') ?? ''
  expect(crlf.slice(-delivered.length) === delivered, `${name} is as it was delivered`).toBe(true)
  const trace = crlf.slice(0, -delivered.length)
  expect(trace).toContain(`Return-Path: <${SENDER}>\r\n`)
  expect(trace).toContain(`Delivered-To: ${address}\r\n`)
  expect(trace).toMatch(
    /^(?:(?:Return-Path|Delivered-To|Received):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+$/,
  )
  expect(address.endsWith(`@${DOMAIN}`)).toBe(true)
}

/** Which of the messages this copy is, by its Subject. */
export function nameOf(fetched: Buffer): string {
  const name = /^Subject: (\S+)\r?$/m.exec(fetched.toString('latin1'))?.[1]
  if (name === undefined) throw new Error('the copy has no Subject')
  return name
}

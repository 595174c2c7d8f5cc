/** Messages that can be told apart and checked: a token in the first line, random lines, a digest. */
import { createHash } from 'node:crypto'
import type { Random } from '../random.ts'

const TOKEN_FIELD = 'X-Torture-Token: '
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/.'

export interface Content {
  token: string
  /** As it must be stored: CRLF lines. */
  octets: Buffer
  digest: string
}

export function makeContent(random: Random, token: string): Content {
  const size = pickSize(random)
  const lines = [`${TOKEN_FIELD}${token}`, 'From: <sender@outside.test>', 'Subject: torture', '']
  // One random block, cut differently again and again: cheap, and no two lines need be alike.
  const block = Array.from({ length: 512 }, () => random.pick([...LETTERS])).join('')
  for (let length = 0; length < size; ) {
    const at = random.integer(0, 500)
    const line = `${random.chance(0.1) ? '.' : ''}${block.slice(at, at + random.integer(0, 76))}`
    lines.push(line)
    length += line.length + 2
  }
  lines.push(`end of ${token}`)
  const octets = Buffer.from(`${lines.join('\r\n')}\r\n`, 'latin1')
  return { token, octets, digest: digestOf(octets) }
}

/** Most mail is small; some crosses the borders of pages, stretches and socket buffers. */
function pickSize(random: Random): number {
  if (random.chance(0.7)) return random.integer(0, 4_000)
  if (random.chance(0.8)) return random.integer(4_000, 60_000)
  return random.integer(60_000, 300_000)
}

const digestOf = (octets: Buffer): string =>
  createHash('sha256').update(octets).digest('hex').slice(0, 32)

export interface SeenMessage {
  /** Empty: there is none. */
  token: string
  /** Of everything from the token's line on. */
  digest: string
  /** Addresses of recipients that the lines before it name, in lower case, each once. */
  names: string[]
}

/** Takes apart what a session was told or what lies in the database: the server's lines, then ours. */
export function examine(octets: Buffer): SeenMessage {
  const at = octets.indexOf(TOKEN_FIELD, 0, 'latin1')
  const prefix = octets.subarray(0, Math.max(0, at)).toString('latin1')
  const names = [...prefix.matchAll(/[a-z0-9]+@[a-z]+\.torture\.test/gi)].map(([name]) =>
    name.toLowerCase(),
  )
  if (at < 0) return { token: '', digest: '', names }
  const start = at + TOKEN_FIELD.length
  const end = octets.indexOf('\r\n', start, 'latin1')
  return {
    token: octets.subarray(start, Math.max(start, end)).toString('latin1'),
    digest: digestOf(octets.subarray(at)),
    names: [...new Set(names)],
  }
}

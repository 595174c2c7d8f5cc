/**
 * The bench believes no server: each lie of a POP3 server fails the load that meets it. A generator
 * that took them would let a wrong server win.
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import {
  accountsOf,
  DELETE,
  deleteUser,
  messageOf,
  type SeededAccount,
  wireOf,
} from '../../../bench/load/content.ts'
import type { Job, Load } from '../../../bench/load/job.ts'
import { perform } from '../../../bench/load/perform.ts'

const SEED = { users: 2, messagesEach: 3, messageOctets: 1_024, special: ['delete'] as const }
const ACCOUNTS = new Map([...accountsOf(SEED)].map((account) => [account.address, account]))

/** From the right reply to what is said instead; undefined: the truth. */
type Lie = (command: string, truth: Buffer) => Buffer | string | undefined

let server: Server | undefined
const sockets = new Set<Socket>()

afterEach(() => {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
  server?.close()
})

function truthOf(command: string, account: SeededAccount | undefined): Buffer {
  const [verb = '', argument] = command.split(' ')
  if (account === undefined || !['STAT', 'LIST', 'UIDL', 'RETR'].includes(verb))
    return Buffer.from('+OK\r\n')
  const { user, messages, octets } = account
  if (verb === 'STAT') return Buffer.from(`+OK ${messages} ${messages * octets}\r\n`)
  if (verb === 'RETR') {
    const wire = wireOf(messageOf(user, Number(argument), octets))
    return Buffer.concat([Buffer.from(`+OK ${octets} octets\r\n`), wire])
  }
  const lines = Array.from(
    { length: messages },
    (_, at) => `${at + 1} ${verb === 'LIST' ? octets : `id-${at}`}\r\n`,
  )
  return Buffer.from(`+OK\r\n${lines.join('')}.\r\n`)
}

async function sendInPieces(socket: Socket, said: Buffer): Promise<void> {
  const ends = [2, said.length >> 1, said.length - 2, said.length]
  let from = 0
  for (const end of ends) {
    socket.write(said.subarray(from, end))
    from = Math.max(from, end)
    await turn()
  }
}

function serve(socket: Socket, lie: Lie, isInPieces: boolean): void {
  sockets.add(socket)
  let account: SeededAccount | undefined
  let rest = ''
  socket.setNoDelay(true)
  socket.write('+OK ready\r\n')
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    const lines = (rest + chunk.toString()).split('\r\n')
    rest = lines.pop() ?? ''
    for (const command of lines) {
      if (command.startsWith('USER')) account = ACCOUNTS.get(command.slice(5))
      const truth = truthOf(command, account)
      const said = lie(command, truth) ?? truth
      if (isInPieces && command !== 'QUIT') void sendInPieces(socket, truth)
      else if (command === 'QUIT' || said === HANG_UP) socket.end(said)
      else socket.write(said)
    }
  })
}

const HANG_UP = Buffer.alloc(0)

/** Against a server that says what `lie` makes of the truth. */
async function run(load: Load, lie: Lie = () => undefined, isInPieces = false) {
  server = createServer((socket) => serve(socket, lie, isInPieces)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const job: Job = {
    load,
    pop3: { host: '127.0.0.1', port, tls: false },
    seed: SEED,
    users: { from: 1, count: 2 },
    atOnce: 2,
    seconds: 0.1,
    warmUpSeconds: 0,
    deleteUsers: 1,
    bigUser: { localPart: 'u1', messages: SEED.messagesEach, octets: SEED.messageOctets },
  }
  return perform(job)
}

test('content has what trips a careless server: dots to stuff, a line of one dot', () => {
  const text = messageOf(deleteUser(1), 1, DELETE.octets).toString('latin1')
  expect(text).toHaveLength(DELETE.octets)
  expect(text).toMatch(/\r\n\.[A-Za-z0-9+/]/)
  expect(text).toContain('\r\n.\r\n')
  expect(text).not.toMatch(/[^\r]\n|\r[^\n]/)
})

test.each<Load>([
  'poll',
  'poll-stat',
  'cold-login',
  'retr',
  'retr-pipelined',
  'big-maildrop',
  'big-maildrop-memory',
])('an honest server does %s', async (load) => {
  const result = await run(load)
  expect(result.operationsInAll).toBeGreaterThan(0)
  expect(result.sessions).toBeGreaterThan(0)
})

test.each<Load>(['poll', 'retr', 'big-maildrop'])(
  'an honest server that says it in pieces does %s',
  async (load) => {
    const result = await run(load, () => undefined, true)
    expect(result.operationsInAll).toBeGreaterThan(0)
  },
)

const replaced =
  (verb: string, change: (text: string) => string): Lie =>
  (command, truth) =>
    command.startsWith(verb) ? Buffer.from(change(truth.toString('latin1')), 'latin1') : undefined

test.each<[string, Load, Lie, RegExp]>([
  ['refuses', 'poll', replaced('PASS', () => '-ERR no\r\n'), /not \+OK: .*-ERR no/],
  ['says -OK', 'poll', replaced('STAT', (t) => t.replace('+', '-')), /not \+OK/],
  ['counts wrong in STAT', 'poll', replaced('STAT', () => '+OK 2 3072\r\n'), /not "\+OK 3 3072"/],
  ['adds wrong in STAT', 'poll', replaced('STAT', () => '+OK 3 30720\r\n'), /not "\+OK 3 3072"/],
  ['ends a line without CR', 'poll', replaced('STAT', () => '+OK 3 3072\n'), /no CRLF/],
  ['leaves one out in UIDL', 'poll', replaced('UIDL', (t) => t.replace(/2 .*\r\n/, '')), /2 lines/],
  ['says an id twice', 'poll', replaced('UIDL', (t) => t.replace('id-1', 'id-0')), /twice/],
  ['says no id', 'poll', replaced('UIDL', (t) => t.replace('id-1', '')), /UIDL says "2 "/],
  ['hangs up', 'poll', (command) => (command === 'UIDL' ? HANG_UP : undefined), /hung up/],
  ['goes on talking', 'poll-stat', replaced('STAT', (t) => `${t}+OK more\r\n`), /nobody asked/],
  [
    'lists wrong octets',
    'big-maildrop',
    replaced('LIST', (t) => t.replace('3 1024', '3 1025')),
    /LIST/,
  ],
  [
    'says an id twice',
    'big-maildrop-memory',
    replaced('UIDL', (t) => t.replace('id-1', 'id-0')),
    /twice/,
  ],
  ['says wrong octets', 'retr', replaced('RETR 3', (t) => t.replace('10240', '10241')), /10241/],
  ['stuffs no dots', 'retr', replaced('RETR', (t) => t.replaceAll('\r\n..', '\r\n.')), /content/],
  [
    'cuts content',
    'retr',
    replaced('RETR 2', (t) => t.replace(/.{9}\r\n\.\r\n$/, '\r\n.\r\n')),
    /content/,
  ],
  ['sends no terminator', 'retr', replaced('RETR 2', (t) => `${t.slice(0, -3)}+OK\r\n`), /content/],
  [
    'changes one octet',
    'retr',
    replaced('RETR 5', (t) => `${t.slice(0, 5_000)}\0${t.slice(5_001)}`),
    /content/,
  ],
  [
    'sends another message',
    'retr-pipelined',
    (command) =>
      command === 'RETR 7' ? truthOf('RETR 8', ACCOUNTS.get('delete-1@bench.example')) : undefined,
    /content/,
  ],
])('a server that %s fails %s', async (_, load, lie, why) => {
  await expect(run(load, lie)).rejects.toThrow(why)
})

test('a server that has other unique-ids the next time fails poll', async () => {
  let polls = 0
  const lie = replaced('UIDL', (text) => text.replaceAll('id-', `id-${polls++}-`))
  await expect(run('poll', lie)).rejects.toThrow(/other unique-ids now/)
})

test('a server that kept what it was to delete fails retr-dele', async () => {
  await expect(run('retr-dele')).rejects.toThrow(/not "\+OK 0 0"/)
})

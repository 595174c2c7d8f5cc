/**
 * A POP3 server that knows everything beforehand: what a Node server could reach if mail cost
 * nothing. One process, no login check, no database; the replies are right, so that the generator
 * takes them. Started by canned.ts with its seed and certificate as an argument.
 */
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { accountsOf, messageOf, type Seed, type SeededAccount, wireOf } from '../load/content.ts'

interface Setup {
  seed: Seed
  certFile: string
  keyFile: string
}

const setup: Setup = JSON.parse(process.argv[2] ?? '')
const accounts = new Map([...accountsOf(setup.seed)].map((account) => [account.address, account]))
const messages = new Map<string, Buffer>()
const listings = new Map<string, Buffer>()

const OK = Buffer.from('+OK\r\n')
const ERR = Buffer.from('-ERR\r\n')

function retrieve({ user, octets }: SeededAccount, number: number): Buffer {
  const key = `${user} ${number}`
  let reply = messages.get(key)
  if (reply === undefined) {
    const wire = wireOf(messageOf(user, number, octets))
    reply = Buffer.concat([Buffer.from(`+OK ${octets} octets\r\n`), wire])
    messages.set(key, reply)
  }
  return reply
}

function list(verb: string, account: SeededAccount): Buffer {
  const key = `${verb} ${account.messages} ${account.octets}`
  let reply = listings.get(key)
  if (reply === undefined) {
    const word = verb === 'LIST' ? `${account.octets}` : ''
    const lines = Array.from(
      { length: account.messages },
      (_, at) => `${at + 1} ${word || `1795000000000.${at + 1}`}\r\n`,
    )
    reply = Buffer.from(`+OK\r\n${lines.join('')}.\r\n`)
    listings.set(key, reply)
  }
  return reply
}

function serve(socket: Socket): void {
  let account: SeededAccount | undefined
  let deleted = 0
  let rest = ''
  const answer = (line: string): Buffer | string => {
    const verb = line.slice(0, 4)
    if (verb === 'USER') {
      account = accounts.get(line.slice(5))
      return OK
    }
    if (account === undefined) return ERR
    if (verb === 'STAT') {
      const left = emptied.has(account.address) ? 0 : account.messages
      return `+OK ${left} ${left * account.octets}\r\n`
    }
    if (verb === 'RETR') return retrieve(account, Number(line.slice(5)))
    if (verb === 'UIDL' || verb === 'LIST') return list(verb, account)
    if (verb === 'DELE') deleted += 1
    if (verb === 'QUIT' && deleted > 0) emptied.add(account.address)
    return OK
  }
  socket.setNoDelay(true)
  socket.write('+OK ready\r\n')
  socket.on('error', () => {})
  socket.on('data', (chunk: Buffer) => {
    const lines = (rest + chunk.toString('latin1')).split('\r\n')
    rest = lines.pop() ?? ''
    if (lines.length === 1 && lines[0] === 'QUIT') {
      socket.end(answer('QUIT'))
      return
    }
    socket.cork()
    for (const line of lines) socket.write(answer(line))
    socket.uncork()
  })
}

/** Whose messages were all deleted; `reset` brings them back. */
const emptied = new Set<string>()
process.on('message', () => emptied.clear())
process.on('disconnect', () => process.exit())

const plain = createServer(serve)
const cert = readFileSync(setup.certFile)
const encrypted = createTlsServer({ cert, key: readFileSync(setup.keyFile) }, serve)
const portOf = (server: typeof plain): number => (server.address() as AddressInfo).port
plain.listen(0, '127.0.0.1', 4_096, () => {
  encrypted.listen(0, '127.0.0.1', 4_096, () => {
    process.send?.({ pop3: portOf(plain), pop3s: portOf(encrypted) })
  })
})

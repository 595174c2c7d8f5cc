/**
 * Moving in without a weekend, from a real Dovecot: 200 users log in at once, each for the first
 * time here, and get what they had there; a client that keeps mail on the server notices nothing.
 */
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Pop3Client } from '../support/pop3-client.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'
import { CopyFolder, describeClients, runClient } from './clients.ts'
import { corpus, type Dovecot, type DovecotUser, startDovecot } from './dovecot.ts'
import { HOST, type InteropServer, startServer } from './server.ts'

const MAIN = resolve(import.meta.dirname, '../../dist/main.js')
const DOMAIN = 'moving.test'
const USERS = 200
const MESSAGES = 10
const CONNECTIONS_MAX = 16
const LARGE_OCTETS = 6_000_000
const PATIENCE_MS = 100_000

const passwordOf = (name: string): string => `old secret of ${name}`

/** What one user sees, here or there: unique-ids and digests in order. */
interface View {
  uniqueIds: string[]
  digests: string[]
}

function makeUsers(): DovecotUser[] {
  const messages = corpus()
  const large = Buffer.from(`Subject: large\r\n\r\n${'x'.repeat(70)}\r\n`.padEnd(80))
  const body = Buffer.alloc(LARGE_OCTETS, `${'y'.repeat(70)}\r\n`)
  return Array.from({ length: USERS }, (_, at) => {
    const name = `user${at}@${DOMAIN}`
    const own = Array.from(
      { length: MESSAGES },
      (_, nth) => messages[(at + nth) % messages.length] ?? Buffer.alloc(0),
    )
    if (at === 0) own.push(Buffer.concat([large, body]))
    return { name, password: passwordOf(name), messages: own }
  })
}

async function viewOf(address: string, name: string): Promise<View> {
  const client = await loginPatiently(address, name)
  return await readAll(client)
}

async function readAll(client: Pop3Client): Promise<View> {
  const { raw } = await client.askMulti('UIDL')
  const lines = raw
    .toString('latin1')
    .split('\r\n')
    .filter((line) => line !== '')
  const digests: string[] = []
  for (const [index] of lines.entries()) {
    const octets = await client.retrieve(`RETR ${index + 1}`)
    digests.push(createHash('sha256').update(octets).digest('hex'))
  }
  await client.ask('QUIT')
  return { uniqueIds: lines.map((line) => line.split(' ')[1] ?? ''), digests }
}

let temporaryCount = 0
const slowest = { ms: 0 }

/** As a mail program does: what is temporary is tried again. */
async function loginPatiently(address: string, name: string): Promise<Pop3Client> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const began = performance.now()
    try {
      return await Pop3Client.login(address, name, passwordOf(name))
    } catch (error) {
      if (!/SYS\/TEMP/.test(String(error)) || performance.now() > deadline) throw error
      temporaryCount += 1
    } finally {
      slowest.ms = Math.max(slowest.ms, performance.now() - began)
    }
  }
}

const isRoot = process.getuid?.() === 0

describeClients('Dovecot', isRoot ? ['dovecot', 'fetchmail'] : ['dovecot-as-root'], () => {
  let server: InteropServer
  let dovecot: Dovecot
  let proxy: TcpProxy
  let openMax = 0
  const place = mkdtempSync(join(tmpdir(), 'popgres-moving-'))
  const before = new Map<string, View>()

  /** The command line; what it says, or the error that it told. */
  async function popgres(...args: string[]): Promise<string> {
    const env = { DATABASE_URL: server.databaseUrl }
    const { status, stdout, stderr } = await runClient(process.execPath, [MAIN, ...args], { env })
    if (status !== 0) throw new Error(stderr)
    return stdout.toString()
  }

  beforeAll(async () => {
    server = await startServer({ hasApop: false })
    dovecot = await startDovecot(place, makeUsers())
    proxy = await TcpProxy.open(dovecot.pop3sPort)
    proxy.onOpenCount = (count) => {
      openMax = Math.max(openMax, count)
    }
    for (let at = 0; at < USERS; at++) {
      const name = `user${at}@${DOMAIN}`
      before.set(name, await viewOf(`${HOST}:${dovecot.pop3Port}`, name))
    }
  }, 120_000)

  afterAll(async () => {
    await server?.stop()
    await proxy?.close()
    await dovecot?.stop()
    rmSync(place, { recursive: true, force: true })
  })

  /** Keeps all mail on the server, and remembers which it has. */
  async function fetchmail(port: number, name: string, folder: CopyFolder): Promise<number> {
    const lines = [
      'set invisible',
      `set idfile "${join(place, 'ids')}"`,
      `poll localhost service ${port} protocol pop3 timeout 60 uidl no dns`,
      `  auth password user "${name}" password "${passwordOf(name)}" sslproto ""`,
      `  keep no fetchall no rewrite no stripcr no mimedecode mda "${folder.command}"`,
    ]
    writeFileSync(join(place, 'rc'), `${lines.join('\n')}\n`, { mode: 0o600 })
    const env = { HOME: place, FETCHMAILHOME: place }
    const args = ['--fetchmailrc', join(place, 'rc')]
    return (await runClient('fetchmail', args, { env })).status
  }

  it('says what it found, and refuses a certificate that nobody vouches for', async () => {
    await popgres('domain', 'add', DOMAIN)
    const from = `pop3s://localhost:${proxy.port}`
    await expect(popgres('domain', 'migrate', DOMAIN, '--from', from)).rejects.toThrow(
      /certificate/,
    )
    const told = await popgres(
      ...['domain', 'migrate', DOMAIN, '--from', from, '--ca-file', dovecot.caFile],
      ...['--connections', String(CONNECTIONS_MAX)],
    )
    expect(told).toContain(from)
    expect(told).toContain('0 users moved')
  })

  it('lets a client that has everything fetch nothing again', async () => {
    const name = `user1@${DOMAIN}`
    const folder = new CopyFolder(place)
    expect(await fetchmail(dovecot.pop3Port, name, folder)).toBe(0)
    expect(folder.copies()).toHaveLength(MESSAGES)
    // Nodes learn by their heartbeats that the domain migrates.
    await untilServed(name)
    expect(await fetchmail(server.pop3Port, name, folder)).toBe(1)
    expect(folder.copies()).toHaveLength(MESSAGES)
  })

  /** [AUTH] until every worker knows, which is within 5 s. */
  async function untilServed(name: string): Promise<void> {
    const deadline = performance.now() + 60_000
    for (let inRow = 0; inRow < 8; ) {
      const address = `${HOST}:${server.pop3Port}`
      const client = await Pop3Client.login(address, name, passwordOf(name)).catch(() => undefined)
      inRow = client === undefined ? 0 : inRow + 1
      await client?.ask('QUIT')
      if (performance.now() > deadline) throw new Error('the domain does not migrate')
    }
  }

  it('moves 200 users who log in at once, with all they had', async () => {
    openMax = 0
    temporaryCount = 0
    const began = performance.now()
    const names = [...before.keys()]
    const address = `${HOST}:${server.pop3Port}`
    const clients = await Promise.all(names.map((name) => loginPatiently(address, name)))
    const seconds = (performance.now() - began) / 1_000
    const views = await Promise.all(clients.map(readAll))
    console.info(
      `${USERS} users in ${seconds.toFixed(1)} s, slowest reply ${Math.round(slowest.ms)} ms, ` +
        `${temporaryCount} told to try again, ${openMax} connections at once`,
    )
    for (const [at, name] of names.entries()) expect(views[at], name).toEqual(before.get(name))
    expect(openMax).toBeLessThanOrEqual(CONNECTIONS_MAX)
    expect(server.output()).not.toContain('old secret of')
  }, 120_000)

  it('needs the old server no more when it is done', async () => {
    expect(await popgres('domain', 'migrate', DOMAIN)).toContain(`${USERS} users moved`)
    expect(await popgres('domain', 'migrate', DOMAIN, '--waiting')).toBe('')
    await popgres('domain', 'migrate', DOMAIN, '--done')
    await proxy.close()
    const view = await viewOf(`${HOST}:${server.pop3Port}`, `user7@${DOMAIN}`)
    expect(view).toEqual(before.get(`user7@${DOMAIN}`))
  })

  it('brings one maildrop by its password: looked at first, and once only', async () => {
    const address = await server.addUser('copied')
    const file = join(place, 'password')
    writeFileSync(file, `${passwordOf(`user3@${DOMAIN}`)}\n`, { mode: 0o600 })
    const args = ['import', 'pop3', address, `pop3s://localhost:${dovecot.pop3sPort}`]
    const flags = ['--ca-file', dovecot.caFile, '--remote-user', `user3@${DOMAIN}`]
    const run = async (...more: string[]) =>
      (await popgres(...args, ...flags, '--password-file', file, ...more)).trim()
    expect(await run('--dry-run')).toBe(
      `would import ${MESSAGES} messages, 0 were in already, 0 skipped`,
    )
    expect(await run()).toBe(`imported ${MESSAGES} messages, 0 were in already, 0 skipped`)
    expect(await run()).toBe(`imported 0 messages, ${MESSAGES} were in already, 0 skipped`)
  })
})

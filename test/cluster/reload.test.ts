/**
 * SIGHUP: what changes and what does not, and that no client notices. The settings that change lie in
 * a .env beside the node, as an operator edits it.
 */
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TestAuthority } from '../support/certificates.ts'
import { Knocker } from '../support/knocker.ts'
import { LineClient } from '../support/line-client.ts'
import { putMessage } from '../support/mail.ts'
import { NodeProcess } from '../support/node-process.ts'
import { isPooled } from '../support/pgbouncer.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { onServer, SERVING_ROLE, servingUrl } from '../support/postgres-setup.ts'
import { isRunning } from '../support/processes.ts'

const USER = 'alice@reload.test'
const PASSWORD = 'a password for reloads'
const RELOADED = 'reloaded'
const REFUSED = /^reload refused/

let database: TestDatabase
let place: string
let node: NodeProcess

beforeEach(async () => {
  database = await openTestDatabase()
  place = mkdtempSync(join(tmpdir(), 'popgres-reload-'))
  const { domainId, userId } = await addUser(database.db, USER, { password: PASSWORD })
  await putMessage(database.db, domainId, [userId], 'Subject: one\r\n\r\none\r\n')
  await putMessage(database.db, domainId, [userId], 'Subject: two\r\n\r\ntwo\r\n')
})

afterEach(async () => {
  await node.destroy()
  await database.close()
  rmSync(place, { recursive: true })
})

function configure(settings: Record<string, string | number>): void {
  const lines = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`)
  writeFileSync(join(place, '.env'), lines.join(''))
}

function start(env: Record<string, string | undefined> = {}): NodeProcess {
  node = new NodeProcess({ cwd: place, env: { DATABASE_URL: servingUrl(database.url), ...env } })
  return node
}

/** @returns from where on the log tells of it */
function reload(): number {
  const from = node.records.length
  process.kill(node.pid, 'SIGHUP')
  return from
}

/** The name that a new client is told. */
async function hostnameAt(address: string): Promise<string> {
  const client = await Pop3Client.connect(address)
  await client.line()
  const farewell = await client.ask('QUIT')
  await client.closed
  return /[a-z]+\.example/.exec(farewell)?.[0] ?? farewell
}

const BUSY =
  'new settings are taken up while clients come all the time: nobody is refused, open sessions go on'

test.each(['1', '2'])(`${BUSY} (workers: %s)`, async (workers) => {
  const { cert, key } = await (await TestAuthority.create()).issue(['pop.example'])
  writeFileSync(join(place, 'cert.pem'), cert)
  writeFileSync(join(place, 'key.pem'), key)
  const tls = { POPGRES_TLS_CERT: 'cert.pem', POPGRES_TLS_KEY: 'key.pem' }
  configure({ ...tls, POPGRES_HOSTNAME: 'before.example' })
  const unixSocket = `unix:${join(place, 'lmtp')}`
  start({
    POPGRES_WORKERS: workers,
    POPGRES_CONNECTIONS_PER_NETWORK: '1000',
    POPGRES_LMTP_LISTEN: `127.0.0.1:0, ${unixSocket}`,
  })
  const { pop3, pop3s, lmtp } = await node.addresses()
  const before = await node.crew(Number(workers))
  const alice = await Pop3Client.login(pop3, USER, PASSWORD)
  expect(await alice.ask('DELE 1')).toMatch(/^\+OK/)

  const knocker = new Knocker()
  knocker.knockAt(pop3, 4)
  knocker.knockAt(pop3s, 2, true)
  knocker.knockAt(lmtp.split(',')[0] ?? '', 1)
  knocker.knockAt(unixSocket, 1)
  await knocker.more(200)
  configure({ ...tls, POPGRES_HOSTNAME: 'after.example' })
  const from = reload()
  expect((await node.record(/^reloading/, from)).changed).toEqual(['POPGRES_HOSTNAME'])
  await node.record('a worker serves', from)
  // Whichever worker has her: it was not, or has not, ended yet.
  expect((await alice.retrieve('RETR 2')).toString()).toContain('Subject: two')
  expect(await alice.ask('QUIT')).toMatch(/^\+OK/)
  await alice.closed
  await node.record(RELOADED, from)
  await knocker.more(200)
  const { served, failures, farewells } = await knocker.stop()

  expect(failures).toEqual([])
  expect(served).toBeGreaterThan(400)
  console.log(`${served} clients came during a reload of ${workers} worker(s), all were served`)
  const names = farewells.flatMap((line) => /[a-z]+\.example/.exec(line)?.[0] ?? [])
  expect(new Set(names)).toEqual(new Set(['before.example', 'after.example']))
  expect(await Promise.all([1, 2, 3, 4].map(() => hostnameAt(pop3)))).not.toContain(
    'before.example',
  )
  expect(before.filter(isRunning)).toEqual([])
  const again = await Pop3Client.login(pop3, USER, PASSWORD)
  expect(await again.ask('STAT')).toMatch(/^\+OK 1 /)
})

test('a session that outlasts POPGRES_DRAIN is told, and deletes nothing', async () => {
  configure({ POPGRES_DRAIN: 1 })
  start({ POPGRES_WORKERS: '1' })
  const { pop3, lmtp } = await node.addresses()
  const alice = await Pop3Client.login(pop3, USER, PASSWORD)
  await alice.ask('DELE 1')
  const mta = await LineClient.connect(lmtp)
  await mta.reply()
  const from = reload()
  await node.record('a worker serves', from)
  expect(await alice.ask('STAT')).toMatch(/^\+OK 1 /)
  expect(await alice.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await mta.reply()).toMatch(/^421 /)
  await node.record(RELOADED, from)
  const again = await Pop3Client.login(pop3, USER, PASSWORD)
  expect(await again.ask('STAT')).toMatch(/^\+OK 2 /)
})

test('wrong settings are refused by name, and everything stays as it was', async () => {
  const good = { POPGRES_HOSTNAME: 'good.example' }
  configure(good)
  start()
  const { pop3 } = await node.addresses()
  const crew = await node.crew(2)
  const changed = { ...good, POPGRES_HOSTNAME: 'wrong.example' }
  const wrong: [Record<string, string | number>, string][] = [
    [{ POPGRES_TYPO: 1 }, 'POPGRES_TYPO is not a setting: see "popgres settings"'],
    [{ POPGRES_AUTOLOGOUT: 5 }, 'POPGRES_AUTOLOGOUT is "5" but must be at least 600'],
    [{ POPGRES_TLS_CERT: 'none.pem' }, 'POPGRES_TLS_CERT and POPGRES_TLS_KEY belong together'],
    [
      { POPGRES_TLS_CERT: 'none.pem', POPGRES_TLS_KEY: 'none.pem' },
      'POPGRES_TLS_CERT: none.pem: cannot be read (ENOENT)',
    ],
  ]
  for (const [settings, reason] of wrong) {
    configure({ ...changed, ...settings })
    expect((await node.record(REFUSED, reload())).reason).toBe(reason)
  }
  expect(await node.crew(2)).toEqual(crew)
  expect(await hostnameAt(pop3)).toBe('good.example')
  // And they do not lie in wait: what is started now has the old ones.
  for (const pid of crew) {
    const from = node.records.length
    process.kill(pid, 'SIGKILL')
    await node.record('a worker serves', from)
  }
  for (let nth = 0; nth < 4; nth++) expect(await hostnameAt(pop3)).toBe('good.example')
})

test('a new worker that cannot listen stops the reload, and the old ones serve on', async () => {
  const taken = new NodeProcess({ env: { DATABASE_URL: servingUrl(database.url) } })
  try {
    const { pop3: takenPop3 } = await taken.addresses()
    configure({ POPGRES_HOSTNAME: 'good.example', POPGRES_POP3_LISTEN: '127.0.0.1:0' })
    start({ POPGRES_POP3_LISTEN: undefined })
    const { pop3 } = await node.addresses()
    const crew = await node.crew(2)
    configure({ POPGRES_HOSTNAME: 'wrong.example', POPGRES_POP3_LISTEN: takenPop3 })
    const from = reload()
    const { reason, level } = await node.record(/^reload stopped/, from)
    expect([level, reason]).toEqual(['error', expect.stringContaining(takenPop3)])
    expect(crew.every(isRunning)).toBe(true)
    // And one that dies later comes back as it was.
    const then = node.records.length
    process.kill(Math.min(...crew), 'SIGKILL')
    await node.record('a worker serves', then)
    for (let nth = 0; nth < 4; nth++) expect(await hostnameAt(pop3)).toBe('good.example')

    configure({ POPGRES_HOSTNAME: 'better.example', POPGRES_POP3_LISTEN: '127.0.0.1:0' })
    await node.record(RELOADED, reload())
    expect(await hostnameAt(pop3)).toBe('better.example')
  } finally {
    await taken.destroy()
  }
})

test('addresses and the number of workers change too; what cannot is named', async () => {
  const other = `127.0.0.1:${await freePort()}`
  configure({ POPGRES_WORKERS: 1, POPGRES_POP3_LISTEN: '127.0.0.1:0' })
  // Nothing else at port 0: the kernel's choice is shared by the order of asking.
  const off = { POPGRES_POP3S_LISTEN: '', POPGRES_LMTP_LISTEN: '' }
  start({ ...off, POPGRES_WORKERS: undefined, POPGRES_POP3_LISTEN: undefined })
  const { pop3 } = await node.addresses()
  configure({
    POPGRES_WORKERS: 3,
    POPGRES_POP3_LISTEN: other,
    POPGRES_DATA_DIR: '/elsewhere',
  })
  let from = reload()
  const kept = await node.record('these settings change only with a restart', from)
  expect(kept.settings).toEqual(['POPGRES_DATA_DIR'])
  expect((await node.record(RELOADED, from)).workers).toBe(3)
  expect(await node.crew(3)).toHaveLength(3)
  await hostnameAt(other)
  await expect(Pop3Client.connect(pop3)).rejects.toThrow('ECONNREFUSED')

  configure({ POPGRES_WORKERS: 1, POPGRES_POP3_LISTEN: other })
  from = reload()
  expect((await node.record(RELOADED, from)).workers).toBe(1)
  expect(await node.crew(1)).toHaveLength(1)
  await hostnameAt(other)
})

test('DATABASE_URL is taken up where it works, and shown to nobody', async () => {
  const role = `popgres_test_reload_${process.pid}`
  const query = (text: string) => onServer(database.url, text)
  await query(`create role ${role} login password 'tanstaaf-1939' in role ${SERVING_ROLE}`)
  try {
    const url = new URL(database.url)
    Object.assign(url, { username: role, password: 'tanstaaf-1939' })
    const file = join(place, 'url')
    writeFileSync(file, servingUrl(database.url))
    configure({ DATABASE_URL_FILE: file })
    start({ DATABASE_URL: undefined, POPGRES_WORKERS: '1' })
    const { pop3 } = await node.addresses()

    url.password = 'another'
    writeFileSync(file, url.toString())
    expect((await node.record(REFUSED, reload())).reason).toMatch(/^DATABASE_URL: .*refused/)
    writeFileSync(file, '')
    expect((await node.record(REFUSED, reload())).reason).toMatch(/^DATABASE_URL_FILE: .* is empty/)
    writeFileSync(file, servingUrl(database.url))
    configure({})
    expect((await node.record(/only with a restart/, reload())).settings).toEqual(['DATABASE_URL'])
    configure({ DATABASE_URL_FILE: file })

    url.password = 'tanstaaf-1939'
    writeFileSync(file, url.toString())
    const from = reload()
    expect((await node.record(/^reloading/, from)).changed).toEqual(['DATABASE_URL'])
    await node.record(RELOADED, from)
    await Pop3Client.login(pop3, USER, PASSWORD)
    // Through PgBouncer they share a connection, which has the name of the last one.
    const names = isPooled ? ['popgres worker'] : ['popgres supervisor', 'popgres worker']
    expect(await connectedAs(role)).toEqual(names)
    expect(JSON.stringify(node.records) + node.stderr).not.toMatch(/tanstaaf|another@/)
  } finally {
    await node.destroy()
    await query(`drop role ${role}`)
  }
})

test('the embedded PostgreSQL lives through it, and what it was started for is named', async () => {
  chmodSync(place, 0o755)
  configure({ POPGRES_HOSTNAME: 'before.example', POPGRES_WORKERS: 1 })
  start({ DATABASE_URL: undefined, POPGRES_DATA_DIR: 'data', POPGRES_WORKERS: undefined })
  const { pop3 } = await node.addresses()
  configure({
    POPGRES_HOSTNAME: 'after.example',
    POPGRES_WORKERS: 100,
    DATABASE_URL: 'postgres://x/y',
  })
  const from = reload()
  const kept = ['DATABASE_URL', 'POPGRES_WORKERS', 'POPGRES_DATABASE_CONNECTIONS']
  expect((await node.record(/only with a restart/, from)).settings).toEqual(kept)
  expect((await node.record(RELOADED, from)).workers).toBe(1)
  expect(await hostnameAt(pop3)).toBe('after.example')
  await Pop3Client.login(pop3, 'demo@example.test', node.demoPassword())
  expect(node.records.filter(({ msg }) => /PostgreSQL (is back|has ended)/.test(msg))).toEqual([])
})

/** Which applications are. */
async function connectedAs(role: string): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select distinct application_name as name from pg_stat_activity where usename = ${role}
    order by 1`.execute(database.db.kysely)
  return rows.map(({ name }) => name)
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/**
 * A node on its embedded PostgreSQL, as `npm start` runs it: what a first start makes, what an end
 * leaves, and what is found again after any end.
 */
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loginSoon } from '../support/login-soon.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { isRunning, processesWith, untilGone } from '../support/processes.ts'

const USER = 'demo@example.test'

let place: string
let dataDir: string
let nodes: NodeProcess[]

beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), 'popgres cluster-'))
  chmodSync(place, 0o755)
  dataDir = join(place, 'deep er', 'data')
  nodes = []
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  // A test that fails after kill -9 leaves a PostgreSQL: another start and end takes it along.
  if (processesWith(dataDir).length > 0) await start().destroy()
  rmSync(place, { recursive: true, force: true, maxRetries: 3 })
})

function start(env: Record<string, string> = {}): NodeProcess {
  const node = new NodeProcess({ env: { POPGRES_DATA_DIR: dataDir, ...env } })
  nodes.push(node)
  return node
}

test('a first start makes a demo user with mail; SIGTERM leaves no process and a second start finds the mail', async () => {
  const first = start()
  const { pop3 } = await first.addresses()
  const password = first.demoPassword()
  const client = await Pop3Client.login(pop3, USER, password)
  const listed = (await client.askMulti('UIDL')).raw.toString()
  expect(listed.split('\r\n').length).toBeGreaterThan(4)
  expect(await client.ask('DELE 2')).toMatch(/^\+OK/)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  expect(await first.stop()).toEqual({ status: 0, signal: null })
  expect(processesWith(dataDir)).toEqual([])

  const second = start()
  const again = await Pop3Client.login((await second.addresses()).pop3, USER, password)
  const left = (await again.askMulti('UIDL')).raw.toString().split('\r\n')
  const expected = listed.split('\r\n').filter((line) => !line.startsWith('2 '))
  expect(left.map((line) => line.split(' ')[1])).toEqual(expected.map((line) => line.split(' ')[1]))
  expect(second.stderr).not.toContain('first start')
  expect(second.stderr).not.toContain('DATABASE_URL')
  expect(second.stderr).toContain('Ctrl-C stops everything; the mail stays.')
})

test('the demo messages hold what they promise: 8-bit, dots at line starts, an attachment', async () => {
  const node = start()
  const client = await Pop3Client.login((await node.addresses()).pop3, USER, node.demoPassword())
  const messages: string[] = []
  const count = Number((await client.ask('STAT')).split(' ')[1])
  for (let number = 1; number <= count; number++) {
    const size = Number((await client.ask(`LIST ${number}`)).split(' ')[2])
    const octets = await client.retrieve(`RETR ${number}`)
    expect(octets.length).toBe(size)
    messages.push(octets.toString('utf8'))
  }
  expect(messages.some((text) => /\r\n\.\r\n/.test(text))).toBe(true)
  expect(messages.some((text) => text.includes('Schöne Grüße'))).toBe(true)
  expect(messages.some((text) => text.includes('Content-Disposition: attachment'))).toBe(true)
  expect(messages.some((text) => text.length > 16_384)).toBe(true)
})

test('Ctrl-C goes to the whole process group: open sessions are told, PostgreSQL ends last', async () => {
  const node = start()
  const client = await Pop3Client.login((await node.addresses()).pop3, USER, node.demoPassword())
  process.kill(-node.pid, 'SIGINT')
  await node.record(/^ending/)
  process.kill(node.pid, 'SIGINT') // npm passes it on once more
  expect(await client.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  client.socket.end()
  expect(await node.exited).toEqual({ status: 0, signal: null })
  expect(processesWith(dataDir)).toEqual([])
  // PostgreSQL was there to the last: nobody complains. The same Ctrl-C came twice: no hurry.
  const complaints = node.records.filter(({ level }) => level === 'warn' || level === 'error')
  expect(complaints.map((record) => JSON.stringify(record))).toEqual([])
  expect(node.records.map(({ msg }) => msg)).not.toContain('ending at once')
})

test('a client that does not go away is not waited for', async () => {
  const node = start()
  const client = await Pop3Client.login((await node.addresses()).pop3, USER, node.demoPassword())
  client.socket.pause()
  const begun = performance.now()
  expect(await node.stop()).toEqual({ status: 0, signal: null })
  expect(performance.now() - begun).toBeLessThan(10_000)
  expect(processesWith(dataDir)).toEqual([])
})

test('after kill -9 of the supervisor its workers end, and the next start takes over', async () => {
  const first = start()
  const { pop3 } = await first.addresses()
  const password = first.demoPassword()
  const session = await Pop3Client.login(pop3, USER, password)
  const workers = await first.crew(2)
  const postmaster = Number((await first.record('PostgreSQL is ready')).postmaster)
  first.child.kill('SIGKILL')
  await session.closed
  await untilGone(() => workers.some(isRunning))
  expect(isRunning(postmaster)).toBe(true)

  const second = start()
  await second.record(/left behind/)
  const again = await Pop3Client.login((await second.addresses()).pop3, USER, password)
  expect(await again.ask('STAT')).toMatch(/^\+OK [1-9]/)
  expect(isRunning(postmaster)).toBe(false)
})

test('a second supervisor on the same data is refused, and the first serves on', async () => {
  const first = start()
  const { pop3 } = await first.addresses()
  const second = start()
  expect((await second.exited).status).toBe(1)
  expect(second.stderr).toContain(`already served by process ${first.pid}`)
  const client = await Pop3Client.login(pop3, USER, first.demoPassword())
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
})

test('a key that is none ends the start before PostgreSQL is there', async () => {
  mkdirSync(dataDir, { recursive: true })
  const file = join(dataDir, 'secret-key')
  writeFileSync(file, 'abc\n')
  const node = start()
  expect(await node.exited).toEqual({ status: 1, signal: null })
  expect(node.stderr).toBe(`popgres: ${file}, line 1: a key is 64 hexadecimal digits, one a line\n`)
  expect(existsSync(join(dataDir, 'postgres'))).toBe(false)
  rmSync(file)
  await start().addresses()
})

test('what goes wrong once PostgreSQL is there takes it along, and the lock', async () => {
  mkdirSync(dataDir, { recursive: true })
  symlinkSync('/etc/hostname', join(dataDir, 'self-signed-cert.pem'))
  const node = start()
  expect(await node.exited).toEqual({ status: 1, signal: null })
  expect(node.records.map(({ msg }) => msg)).toContain('PostgreSQL is ready')
  expect(node.stderr).toMatch(/^popgres: .*self-signed-cert\.pem is a link.*\n$/)
  expect(processesWith(dataDir)).toEqual([])
  expect(existsSync(join(dataDir, 'supervisor.lock'))).toBe(false)
})

test.each([
  [{ POPGRES_TLS_CERT: '/none.pem', POPGRES_TLS_KEY: '/key.pem' }, 'POPGRES_TLS_CERT: /none.pem'],
  [{ POPGRES_TLS_DIRECTORY: '/none' }, 'POPGRES_TLS_DIRECTORY: /none'],
])('TLS files that are not there end the start before anything: %j', async (env, named) => {
  for (const database of [{}, { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' }]) {
    const node = start({ ...env, ...database })
    expect(await node.exited).toEqual({ status: 1, signal: null })
    expect(node.stderr).toBe(`popgres: ${named}: cannot be read (ENOENT)\n`)
    expect(existsSync(dataDir)).toBe(false)
  }
})

test('data of another major version is refused and left alone', async () => {
  const first = start()
  await first.addresses()
  await first.stop()
  const version = join(dataDir, 'postgres', 'PG_VERSION')
  const original = readFileSync(version, 'utf8')
  writeFileSync(version, '17\n')
  const second = start()
  expect((await second.exited).status).toBe(1)
  expect(second.stderr).toMatch(/holds data of PostgreSQL 17.*pg_dump/)
  expect(processesWith(dataDir)).toEqual([])
  writeFileSync(version, original)
  await start().addresses()
})

test('a start that is killed while it makes the database leaves nothing that the next one trusts', async () => {
  const first = start()
  await first.record(/^making a PostgreSQL/)
  await untilGone(() => !readdirSync(dataDir).some(isUnfinished))
  first.child.kill('SIGKILL')
  await first.exited
  expect(existsSync(join(dataDir, 'postgres'))).toBe(false)
  expect(readdirSync(dataDir).some(isUnfinished)).toBe(true)
  const second = start()
  const client = await Pop3Client.login(
    (await second.addresses()).pop3,
    USER,
    second.demoPassword(),
  )
  expect(await client.ask('STAT')).toMatch(/^\+OK [1-9]/)
  expect(readdirSync(dataDir).some(isUnfinished)).toBe(false)
})

test('Ctrl-C while it makes the database ends the start without complaint and without processes', async () => {
  const first = start()
  await first.record(/^making a PostgreSQL/)
  process.kill(-first.pid, 'SIGINT')
  expect(await first.exited).toEqual({ status: 0, signal: null })
  expect(first.stderr).toBe('')
  expect(processesWith(dataDir)).toEqual([])
  await start().addresses()
})

test('a PostgreSQL that is killed is started again, at the same port, and mail is there', async () => {
  const node = start()
  const { pop3 } = await node.addresses()
  const postmaster = Number((await node.record('PostgreSQL is ready')).postmaster)
  const from = node.records.length
  process.kill(postmaster, 'SIGKILL')
  await node.record(/starting it again/, from)
  await node.record('PostgreSQL is back', from)
  const client = await loginSoon(pop3, USER, node.demoPassword())
  expect(await client.ask('STAT')).toMatch(/^\+OK [1-9]/)
})

test('secrets are in no command line and in no environment, and their files are private', async () => {
  const node = start()
  await node.addresses()
  const password = readFileSync(join(dataDir, 'database-password'), 'utf8').trim()
  const key = readFileSync(join(dataDir, 'secret-key'), 'utf8').trim()
  const everything = [...processesWith(dataDir), ...processesWith('main.js serve')]
  expect(everything.length).toBeGreaterThan(2)
  for (const { pid, command } of everything) {
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1')
    for (const secret of [password, key]) expect(command + environment).not.toContain(secret)
  }
})

const isUnfinished = (name: string): boolean => name.startsWith('unfinished-')

const hasCurl = spawnSync('curl', ['--version']).status === 0

test.runIf(hasCurl)('the lines that are printed work when they are pasted', async () => {
  const node = start()
  await node.addresses()
  const lines = node.stderr.split('\n').filter((line) => /^ {2}(curl|\(printf)/.test(line))
  expect(lines).toHaveLength(4)
  const paste = (line: string | undefined): string =>
    spawnSync('sh', ['-c', line ?? ''], { encoding: 'utf8' }).stdout
  const [list, read, encrypted, deliver] = lines
  const before = paste(list).trim().split('\r\n')
  expect(paste(read)).toMatch(/^Return-Path: .*\r\nSubject: Welcome/s)
  expect(encrypted).toContain('pop3s://')
  expect(paste(encrypted)).toBe(paste(read))
  expect(paste(deliver)).toMatch(/\r\n250 2.*\r\n221 /)
  const after = paste(list).trim().split('\r\n')
  expect(after).toHaveLength(before.length + 1)
  expect(paste(list?.replace(/$/, String(after.length)))).toContain('Hello, Popgres!')
})

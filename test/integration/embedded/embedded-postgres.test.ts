/**
 * The embedded PostgreSQL without a node around it: who may start it, what is found of it, and what
 * stale files do not prevent.
 */
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { isRoot } from '../../../src/cli/embedded/account.ts'
import { findHome } from '../../../src/cli/embedded/home.ts'
import { readSecretFile } from '../../../src/cli/embedded/private-files.ts'
import { processIdentity } from '../../../src/cli/embedded/processes.ts'
import { type Embedded, findEmbedded, startEmbedded } from '../../../src/cli/embedded-postgres.ts'
import { openTestConnection } from '../../support/postgres.ts'

const log = openLog('fatal')
/** An ordinary account that every machine has. */
const NOBODY = 65_534

let dataDir: string
let running: Embedded[]

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'popgres embedded-'))
  chmodSync(dataDir, 0o755)
  running = []
})

afterEach(async () => {
  for (const embedded of running) await embedded.stop()
  rmSync(dataDir.replace(/\/deep.*/, ''), { recursive: true, force: true, maxRetries: 3 })
})

async function start(): Promise<Embedded> {
  const embedded = await startEmbedded({ dataDir, log, isDurable: false })
  running.push(embedded)
  return embedded
}

const SETTINGS = {
  name: 'test_settings',
  text: `select current_setting('server_encoding'), current_setting('listen_addresses'),
    (select datcollate from pg_database where datname = current_database()),
    case when inet_server_addr() is null then 'socket' else 'TCP' end`,
}

async function settingsOf(url: string): Promise<(string | undefined)[]> {
  const db = openTestConnection(url)
  try {
    const [row] = await db.bulk(SETTINGS, [])
    return (row ?? []).map((field) => field?.toString())
  } finally {
    await db.close()
  }
}

test('it is UTF-8 in locale C, listens on loopback and a socket of its own, and takes its password only', async () => {
  const { url } = await start()
  const text = url.reveal().toString()
  expect(await settingsOf(text)).toEqual(['UTF8', '127.0.0.1', 'C', 'socket'])
  const socketDirectory = decodeURIComponent(new URL(text).hostname)
  expect(statSync(socketDirectory).mode & 0o077).toBe(0)
  for (const hostname of [new URL(text).hostname, '127.0.0.1']) {
    const wrong = new URL(text)
    wrong.hostname = hostname
    wrong.password = 'wrong'
    const refused = openTestConnection(wrong.toString())
    await expect(refused.ping()).rejects.toThrow(/password/)
    await refused.close()
  }
})

test('in a directory that lies too deep for a socket it is reached by TCP', async () => {
  dataDir = join(dataDir, 'deep'.repeat(20))
  const { url } = await start()
  expect(await settingsOf(url.reveal().toString())).toEqual(['UTF8', '127.0.0.1', 'C', 'TCP'])
})

test('the first start lasts until it is confirmed; keys stay the same', async () => {
  const first = await start()
  expect(first.isFirstStart).toBe(true)
  await first.stop()
  const second = await start()
  expect(second.isFirstStart).toBe(true)
  second.confirmFirstStart()
  await second.stop()
  const third = await start()
  expect(third.isFirstStart).toBe(false)
  expect(third.keyring.keys[0]?.reveal()).toEqual(first.keyring.keys[0]?.reveal())
  expect(third.keyring.keys[0]?.reveal()).toHaveLength(32)
})

test.each([
  ['abc\n', 1],
  [`${'a'.repeat(64)}\n\nabc\n`, 3],
  ['\nabc', 2],
  ['', 1],
])('the wrong key in %j is told by its line, before anything is started', async (text, line) => {
  const file = join(dataDir, 'secret-key')
  writeFileSync(file, text)
  await expect(start()).rejects.toThrow(
    `${file}, line ${line}: a key is 64 hexadecimal digits, one a line`,
  )
  expect(readdirSync(dataDir).toSorted()).toEqual(['database-password', 'secret-key'])
})

test('the secrets that are made are lines', async () => {
  await start()
  for (const name of ['database-password', 'secret-key'])
    expect(readFileSync(join(dataDir, name), 'utf8')).toMatch(/^[0-9a-f]{48,64}\n$/)
})

test('it is found while it runs, and only then', async () => {
  expect(await findEmbedded({ dataDir })).toBeUndefined()
  expect(await findEmbedded({ dataDir: join(dataDir, 'missing') })).toBeUndefined()
  const embedded = await start()
  const found = await findEmbedded({ dataDir })
  expect(found?.url.reveal().toString()).toBe(embedded.url.reveal().toString())
  expect(found?.keyring.keys[0]?.reveal()).toEqual(embedded.keyring.keys[0]?.reveal())
  await embedded.stop()
  expect(await findEmbedded({ dataDir })).toBeUndefined()
})

const portOf = ({ url }: Embedded): number => Number(new URL(url.reveal().toString()).port)

test('its port stays from start to start, unless another has taken it', async () => {
  const first = await start()
  const port = portOf(first)
  await first.stop()
  const second = await start()
  expect(portOf(second)).toBe(port)
  await second.stop()

  const warn = vi.spyOn(log, 'warn')
  const other = createServer().listen(port, '127.0.0.1')
  await once(other, 'listening')
  const third = await start()
  other.close()
  expect(portOf(third)).not.toBe(port)
  expect(warn).toHaveBeenCalledExactlyOnceWith(
    { before: port, port: portOf(third) },
    'the port of PostgreSQL is taken by another: it has a new one',
  )
  warn.mockRestore()
  await third.stop()
  expect(portOf(await start())).toBe(portOf(third))
})

test('a second start is refused, and does not disturb the first', async () => {
  const { url } = await start()
  await expect(start()).rejects.toThrow(`already served by process ${process.pid}`)
  const db = openTestConnection(url.reveal().toString())
  await db.ping()
  await db.close()
})

test('the lock of a process that is gone holds nobody up, even if another has its number now', async () => {
  const lock = join(dataDir, 'supervisor.lock')
  const parent = process.ppid
  expect(processIdentity(parent)).toBeDefined()
  for (const content of [`${2 ** 22 + 1}\nsome start\n`, `${parent}\nanother start\n`, '']) {
    writeFileSync(lock, content)
    await (await start()).stop()
    expect(existsSync(lock)).toBe(false)
  }
  writeFileSync(lock, `${parent}\n${processIdentity(parent)}\n`)
  await expect(start()).rejects.toThrow(`already served by process ${parent}`)
})

test('a stale postmaster.pid with the number of another process does not prevent a start', async () => {
  const first = await start()
  await first.stop()
  const pidFile = join(dataDir, 'postgres', 'postmaster.pid')
  const lines = [process.ppid, join(dataDir, 'postgres'), 1, 15_432, '', '127.0.0.1', '', 'ready']
  writeFileSync(pidFile, `${lines.join('\n')}\n`)
  expect(await findEmbedded({ dataDir })).toBeUndefined()
  const second = await start()
  expect(second.wasOrphanStopped).toBe(false)
  expect(await findEmbedded({ dataDir })).toBeDefined()
})

test('stop may be called twice', async () => {
  const embedded = await start()
  await Promise.all([embedded.stop(), embedded.stop()])
  await embedded.stop()
})

test.each(['postgres.log', 'database-password', 'secret-key'])(
  'a link in the place of %s is not followed',
  async (name) => {
    const victim = mkdtempSync(join(tmpdir(), 'popgres-victim-'))
    try {
      const file = join(victim, 'file')
      writeFileSync(file, 'untouched', { mode: 0o640 })
      symlinkSync(file, join(dataDir, name))
      await expect(start()).rejects.toThrow(`${name} is a link`)
      expect([readFileSync(file, 'utf8'), statSync(file).mode & 0o777]).toEqual([
        'untouched',
        0o640,
      ])
      rmSync(join(dataDir, name))
      expect(statSync(await privateFile(name)).mode & 0o777).toBe(0o600)
    } finally {
      rmSync(victim, { recursive: true })
    }
  },
)

async function privateFile(name: string): Promise<string> {
  await start()
  return join(dataDir, name)
}

test.runIf(isRoot())(
  'root reads no file that the owner of its directory can only have linked',
  () => {
    const file = join(dataDir, 'database-password')
    writeFileSync(file, 'a secret\n', { mode: 0o600 })
    expect(readSecretFile(file).reveal().toString()).toBe('a secret')
    chownSync(dataDir, NOBODY, NOBODY)
    expect(() => readSecretFile(file)).toThrow('not a file of the directory')
    chownSync(file, NOBODY, NOBODY)
    expect(readSecretFile(file).reveal().toString()).toBe('a secret')
  },
)

test('a note of another account about where the data is leads root nowhere', async () => {
  const elsewhere = mkdtempSync(join(tmpdir(), 'popgres-elsewhere-'))
  const note = join(dataDir, 'where-the-data-is.txt')
  try {
    writeFileSync(note, `${elsewhere}\n`)
    expect(findHome(dataDir)).toBe(elsewhere)
    if (!isRoot()) return
    chownSync(note, NOBODY, NOBODY)
    expect(findHome(dataDir)).toBeUndefined()
    chownSync(note, 0, 0)
    chownSync(dataDir, NOBODY, NOBODY)
    expect(findHome(dataDir)).toBeUndefined()
  } finally {
    rmSync(elsewhere, { recursive: true })
  }
})

test.each(['/proc/popgres-data', '/dev/null/popgres-data'])(
  'a data directory that cannot be made is refused at once: %s',
  async (directory) => {
    const starting = startEmbedded({ dataDir: directory, log, isDurable: false })
    await expect(starting).rejects.toThrow(`cannot use the directory ${directory}`)
  },
)

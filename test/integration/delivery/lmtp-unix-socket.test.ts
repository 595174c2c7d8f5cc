/** LMTP on a Unix socket: who finds it, what a killed process leaves, what a stop leaves. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { openLmtp, readStored, sendMail, startTestLmtp } from '../../support/lmtp.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let alice: { domainId: number; userId: number }
let directory: string
let path: string

beforeAll(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, 'alice@example.test')
})

afterAll(() => database?.close())

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'popgres-lmtp-'))
  path = join(directory, 'lmtp.sock')
})

afterEach(() => rm(directory, { recursive: true }))

test('mail comes in, no network has to be trusted, the trace names no address', async () => {
  const lmtp = await startTestLmtp(database.db, { listen: { path }, trusted: '' })
  expect(lmtp.address).toBe(`unix:${path}`)
  const client = await openLmtp(lmtp)
  const replies = await sendMail(client, '', ['alice@example.test'], Buffer.from('local\r\n'))
  expect(replies[0]).toMatch(/^250 2\.1\.5 /)
  client.destroy()
  await lmtp.stop()
  const [copy] = await readStored(database.db, alice)
  expect(copy?.prefix.replace(/\r\n +/g, ' ')).toContain(
    'Received: from client.example.test by mx.example.test with LMTP id',
  )
})

test('every account that gets into the directory may connect; a stop removes the file', async () => {
  const lmtp = await startTestLmtp(database.db, { listen: { path } })
  expect((await stat(path)).mode & 0o777).toBe(0o666)
  await lmtp.stop()
  expect(existsSync(path)).toBe(false)
})

test('a file left behind by a killed process is replaced', async () => {
  const script = 'require("net").createServer().listen(process.argv[1], () => console.log("up"))'
  const child = spawn(process.execPath, ['-e', script, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')
  expect(existsSync(path)).toBe(true)
  const lmtp = await startTestLmtp(database.db, { listen: { path } })
  const client = await lmtp.connect()
  expect(await client.reply()).toMatch(/^220 /)
  client.destroy()
  await lmtp.stop()
})

test('a socket that is served and a file that is no socket stay', async () => {
  const lmtp = await startTestLmtp(database.db, { listen: { path } })
  await expect(startTestLmtp(database.db, { listen: { path } })).rejects.toThrow('EADDRINUSE')
  const client = await lmtp.connect()
  expect(await client.reply()).toMatch(/^220 /)
  client.destroy()
  await lmtp.stop()
  await writeFile(path, 'notes')
  await expect(startTestLmtp(database.db, { listen: { path } })).rejects.toThrow('EADDRINUSE')
  expect((await stat(path)).size).toBe(5)
})

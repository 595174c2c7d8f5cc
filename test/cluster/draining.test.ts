/** What a stop of a whole node waits for, and what not. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority } from '../support/certificates.ts'
import { longMessage, putMessage } from '../support/mail.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'

/** More than the kernel takes for a peer that does not read. */
const MESSAGE = longMessage(20_000_000)

let database: TestDatabase
let directory: string
let node: NodeProcess

beforeAll(async () => {
  database = await openTestDatabase()
  directory = mkdtempSync(join(tmpdir(), 'popgres-draining-'))
  const { cert, key } = await (await TestAuthority.create()).issue(['pop.example'])
  writeFileSync(join(directory, 'cert.pem'), cert)
  writeFileSync(join(directory, 'key.pem'), key)
  const { domainId, userId } = await addUser(database.db, 'alice@drain.test', {
    password: 'secret',
  })
  await putMessage(database.db, domainId, [userId], MESSAGE)
})
afterEach(() => node.destroy())
afterAll(async () => {
  await database.close()
  rmSync(directory, { recursive: true })
})

test('unfinished handshakes end at once, an open session with its message', async () => {
  node = new NodeProcess({
    env: {
      DATABASE_URL: servingUrl(database.url),
      POPGRES_TLS_CERT: join(directory, 'cert.pem'),
      POPGRES_TLS_KEY: join(directory, 'key.pem'),
      POPGRES_WORKERS: '1',
    },
  })
  const { pop3, pop3s } = await node.addresses()
  const reading = await Pop3Client.connectTls(pop3s)
  await reading.line()
  await reading.ask('USER alice@drain.test')
  expect(await reading.ask('PASS secret')).toMatch(/^\+OK/)
  expect(await reading.ask('RETR 1')).toMatch(/^\+OK/)
  reading.socket.pause()
  const afterStls = await Pop3Client.connect(pop3)
  await afterStls.line()
  expect(await afterStls.ask('STLS')).toMatch(/^\+OK/)
  const onTlsPort = await Pop3Client.connect(pop3s)
  onTlsPort.send('\x16\x03\x01')

  const ended = node.stop()
  await Promise.all([afterStls.closed, onTlsPort.closed])
  expect((await node.record('TLS handshake failed')).reason).toContain('the server ends')
  reading.socket.resume()
  const rest = await reading.closed
  expect(rest.toString('latin1').slice(-200)).toMatch(/\r\n\.\r\n-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
  expect(rest.length).toBeGreaterThan(MESSAGE.length - 1_000_000)
  expect(await ended).toEqual({ status: 0, signal: null })
})

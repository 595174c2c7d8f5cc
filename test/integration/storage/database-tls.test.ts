/**
 * TLS to PostgreSQL: with sslmode=verify-full nothing is said to a server whose certificate is of
 * another authority or another name, nor to one that speaks no TLS.
 */
import { chmodSync, chownSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { type Embedded, startEmbedded } from '../../../src/cli/embedded-postgres.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { openTestConnection } from '../../support/postgres.ts'

let directory: string
let embedded: Embedded
let admin: pg.Client
let right: TestAuthority

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-test-tls-'))
  chmodSync(directory, 0o755) // as root, PostgreSQL's account has to get in
  embedded = await startEmbedded({ dataDir: directory, log: openLog('error'), isDurable: false })
  admin = new pg.Client(embedded.url.reveal().toString())
  await admin.connect()
  right = await TestAuthority.create('right')
  writeFileSync(join(directory, 'right.pem'), right.cert)
  writeFileSync(join(directory, 'wrong.pem'), (await TestAuthority.create('wrong')).cert)
})

afterAll(async () => {
  await admin?.end()
  await embedded?.stop()
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
})

async function serveTls({ cert, key }: TestCertificate): Promise<void> {
  const folder = await show("current_setting('data_directory')")
  const { uid, gid } = statSync(folder)
  for (const [name, text] of Object.entries({ 'server.crt': cert, 'server.key': key })) {
    writeFileSync(join(folder, name), text, { mode: 0o600 })
    chownSync(join(folder, name), uid, gid)
  }
  await admin.query('alter system set ssl = on')
  const before = await show('pg_conf_load_time()::text')
  await admin.query('select pg_reload_conf()')
  // Its processes are told after the server itself has read the files.
  while ((await show('pg_conf_load_time()::text')) === before) {}
}

async function show(expression: string): Promise<string> {
  return (await admin.query(`select ${expression} as shown`)).rows[0].shown
}

function open(host: string, authority: 'right' | 'wrong'): Database {
  const url = new URL(embedded.url.reveal().toString())
  url.hostname = host
  url.searchParams.set('sslmode', 'verify-full')
  url.searchParams.set('sslrootcert', join(directory, `${authority}.pem`))
  return openTestConnection(url.toString())
}

const IS_ENCRYPTED = 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'

async function refusal(host: string, authority: 'right' | 'wrong'): Promise<string> {
  const db = open(host, authority)
  const ways = [
    () => db.hot({ name: 'is-encrypted', text: IS_ENCRYPTED }, []),
    () => db.bulk({ name: 'is-encrypted', text: IS_ENCRYPTED }, []),
    () => sql.raw(IS_ENCRYPTED).execute(db.kysely),
  ]
  const errors = await Promise.all(ways.map((way) => way().then(String, String)))
  await db.close()
  expect(new Set(errors).size).toBe(1)
  return errors[0] ?? ''
}

test('a server without TLS is refused', async () => {
  expect(await refusal('localhost', 'right')).toMatch(/does not support SSL/)
})

test('a server with a certificate of the authority, for its name, is used encrypted', async () => {
  await serveTls(await right.issue(['localhost']))
  const db = open('localhost', 'right')
  const statement = { name: 'is-encrypted', text: IS_ENCRYPTED }
  expect(await db.hot(statement, [])).toEqual([[Buffer.of(1)]])
  expect(await db.bulk(statement, [])).toEqual([[Buffer.of(1)]])
  expect((await sql.raw(IS_ENCRYPTED).execute(db.kysely)).rows).toEqual([{ ssl: true }])
  await db.close()
})

test('a server of another authority is refused', async () => {
  await serveTls(await right.issue(['localhost']))
  expect(await refusal('localhost', 'wrong')).toMatch(/unable to verify|self-signed|issuer/)
})

test('a server of another name is refused', async () => {
  await serveTls(await right.issue(['db.example.test']))
  expect(await refusal('localhost', 'right')).toMatch(/does not match certificate/)
  await serveTls(await right.issue(['localhost']))
  expect(await refusal('127.0.0.1', 'right')).toMatch(/does not match certificate|not in the cert/)
})

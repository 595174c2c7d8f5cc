/** A node on a PostgreSQL of the operator's: what it says while something is missing. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { addCertificate } from '../../src/admin/operations/trust/certificates.ts'
import { Secret } from '../../src/base/secret.ts'
import { TestAuthority } from '../support/certificates.ts'
import { NodeProcess } from '../support/node-process.ts'
import { isPooled } from '../support/pgbouncer.ts'
import { openTestDatabase, TEST_KEYRING, type TestDatabase } from '../support/postgres.ts'
import { onServer, SERVING_ROLE, servingUrl } from '../support/postgres-setup.ts'

const HOST = 'pop.example'
const NO_CERTIFICATE = /^POP3S has no certificate yet/
const WAITING = /^waiting for the database/

let database: TestDatabase
let node: NodeProcess | undefined

beforeAll(async () => {
  database = await openTestDatabase()
})

afterEach(async () => {
  await node?.destroy()
  node = undefined
})

afterAll(() => database.close())

const start = (env: Record<string, string>): NodeProcess => {
  node = new NodeProcess({ env: { DATABASE_URL: servingUrl(database.url), ...env } })
  return node
}

const warnings = (of: NodeProcess) =>
  of.records.filter(({ msg }) => NO_CERTIFICATE.test(msg)).map(({ level }) => level)

test('no certificate: the banner says so and one warning, until the database has one', async () => {
  const bare = start({})
  expect((await bare.addresses()).pop3s).toMatch(
    /^127\.0\.0\.1:\d+ \(no certificate yet: .*POPGRES_TLS_CERT.*popgres certificate add\)$/,
  )
  expect(warnings(bare)).toEqual(['warn'])
  await bare.stop()

  const off = start({ POPGRES_POP3S_LISTEN: '' })
  expect((await off.addresses()).pop3s).toBe('(off)')
  expect(warnings(off)).toEqual([])
  await off.stop()

  const { cert, key } = await (await TestAuthority.create()).issue([HOST])
  const pair = { chain: cert, key: new Secret(Buffer.from(key)) }
  await addCertificate(database.db, TEST_KEYRING, HOST, pair)
  const dressed = start({})
  expect((await dressed.addresses()).pop3s).toMatch(/^127\.0\.0\.1:\d+$/)
  expect(warnings(dressed)).toEqual([])
})

test('a login that PostgreSQL refuses is waited for, with the reason each time', async () => {
  const role = `popgres_test_late_${process.pid}`
  const query = (text: string) => onServer(database.url, text)
  await query(`create role ${role} login password 'before' in role ${SERVING_ROLE}`)
  try {
    const url = new URL(database.url)
    Object.assign(url, { username: role, password: 'tanstaaf-1939' })
    const waiting = start({ DATABASE_URL: url.toString() })
    const error = {
      code: 'STORAGE_LOGIN_REFUSED',
      message: isPooled
        ? 'the database refused the login: SASL authentication failed'
        : `the database refused the login: password authentication failed for user "${role}"`,
    }
    const first = await waiting.record(WAITING)
    const again = await waiting.record(WAITING, waiting.records.indexOf(first) + 1)
    expect([first.error, again.error]).toEqual([error, error])

    await query(`alter role ${role} password 'tanstaaf-1939'`)
    await waiting.record('the database is there')
    expect(JSON.stringify(waiting.records) + waiting.stderr).not.toContain('tanstaaf')
  } finally {
    await node?.destroy()
    await query(`drop role ${role}`)
  }
})

/** A reload whose new database takes the login and then says nothing: the node can still be ended. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { NodeProcess } from '../support/node-process.ts'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'

const READY_FOR_QUERY = Buffer.from('Z\0\0\0\x05I', 'latin1')

let database: TestDatabase
let place: string
let node: NodeProcess
let proxy: TcpProxy

beforeEach(async () => {
  database = await openTestDatabase()
  place = mkdtempSync(join(tmpdir(), 'popgres-silent-'))
  proxy = await TcpProxy.open(Number(new URL(database.url).port))
})

afterEach(async () => {
  if (node.child.exitCode === null) node.child.kill('SIGKILL')
  await node.exited
  await proxy.close()
  await database.close()
  rmSync(place, { recursive: true })
})

/** @returns when something was asked after the login */
function fallSilentAfterLogin(): Promise<void> {
  const loggedIn = new WeakSet<object>()
  return new Promise((asked) => {
    proxy.onAnswer = (chunk, connection) => {
      if (loggedIn.has(connection)) {
        asked()
        return Buffer.alloc(0)
      }
      if (chunk.includes(READY_FOR_QUERY)) loggedIn.add(connection)
      return chunk
    }
  })
}

test('a new database that falls silent is refused in time, also while the node ends', async () => {
  const url = new URL(servingUrl(database.url))
  const file = join(place, 'url')
  writeFileSync(file, url.toString())
  node = new NodeProcess({ env: { DATABASE_URL_FILE: file, POPGRES_WORKERS: '1' } })
  await node.addresses()
  Object.assign(url, { hostname: '127.0.0.1', port: String(proxy.port) })
  writeFileSync(file, url.toString())
  const asked = fallSilentAfterLogin()
  process.kill(node.pid, 'SIGHUP')
  await asked
  process.kill(node.pid, 'SIGTERM')
  expect((await node.record(/^reload refused/)).reason).toMatch(/^DATABASE_URL: .*timeout/)
  expect(await node.exited).toEqual({ status: 0, signal: null })
})

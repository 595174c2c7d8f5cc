/** PostgreSQL has no connection left: refused for now, in every protocol, until there is one. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openTestConnection } from '../../support/postgres.ts'
import { servingUrl } from '../../support/postgres-setup.ts'
import { useUpConnections } from '../../torture/faults/means/connection-hog.ts'
import { until } from '../../torture/faults/means/until.ts'
import { makePostgres, PARAMETERS, type PostgresServer } from '../../torture/postgres.ts'
import {
  addOwner,
  deliver,
  logIn,
  type NodeBehindProxy,
  replyToLogin,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

let directory: string
let postgres: PostgresServer
let database: { db: ReturnType<typeof openTestConnection> }
let behind: NodeBehindProxy

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-connections-'))
  chmodSync(directory, 0o755)
  postgres = await makePostgres(directory, [...PARAMETERS, 'max_connections=40'])
  database = { db: openTestConnection(postgres.url) }
  behind = await startBehindProxy(postgres.url)
})

afterEach(async () => {
  await behind?.stop()
  await database?.db.close()
  await postgres?.stop()
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
})

test('no connection left: [SYS/TEMP] and 451, and all goes on when there are some', async () => {
  const { node, proxy, pop3, lmtp } = behind
  const alice = await addOwner(database, 'alice@connections.test', 2)
  const bob = await addOwner(database, 'bob@connections.test', 1)
  const session = await logIn(pop3, alice)
  await session.ask('DELE 1')
  proxy.cut(true)
  const giveBack = await useUpConnections(servingUrl(postgres.url))
  proxy.heal()
  expect(await replyToLogin(pop3, bob)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await deliver(lmtp, bob, 'for later')).toMatch(/^451 4\.3\.0 /)
  expect(await session.ask('STAT')).toMatch(/^\+OK 1 /)
  expect(await session.ask('RETR 2')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(JSON.stringify(node.records)).toMatch(/connection slots|too many (clients|connections)/)

  await giveBack()
  await until('a login is taken again', async () => (await replyToLogin(pop3, bob))[0] === '+')
  expect(await deliver(lmtp, bob, 'now')).toMatch(/^250 /)
  expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  expect(await uidsIn(database, 'messages', alice)).toEqual([2])
  expect(await uidsIn(database, 'messages', bob)).toEqual([1, 2])
  expect(node.records.map(({ msg }) => msg)).not.toContain('a worker has ended: starting another')
})

/**
 * A PostgreSQL of the operator's that is away when the node starts, comes, goes and comes back. It is
 * a real one, at a fixed port, started and stopped as its service would be.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openLog } from '../../src/base/log.ts'
import { type Account, resolveAccount } from '../../src/cli/embedded/account.ts'
import { type Binaries, prepareBinaries } from '../../src/cli/embedded/binaries.ts'
import { pgDataOf } from '../../src/cli/embedded/home.ts'
import { startPostmaster, stopProcess } from '../../src/cli/embedded/postmaster.ts'
import { startEmbedded } from '../../src/cli/embedded-postgres.ts'
import { migrate } from '../../src/storage/migrator.ts'
import { LineClient } from '../support/line-client.ts'
import { loginSoon } from '../support/login-soon.ts'
import { putMessage } from '../support/mail.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestConnection } from '../support/postgres.ts'
import { isRunning } from '../support/processes.ts'

const USER = 'dora@away.test'
const PASSWORD = 'a password for later'
const log = openLog('error')

let home: string
let url: string
let account: Account
let binaries: Binaries
let postmaster = 0
let node: NodeProcess | undefined

beforeEach(async () => {
  home = mkdtempSync(join(tmpdir(), 'popgres-away-'))
  chmodSync(home, 0o755)
  const embedded = await startEmbedded({ dataDir: home, log, isDurable: false })
  url = embedded.url.reveal().toString()
  const db = openTestConnection(url)
  await migrate(db, log)
  const { domainId, userId } = await addUser(db, USER, { password: PASSWORD })
  await putMessage(db, domainId, [userId], 'Subject: kept\r\n\r\nkept\r\n')
  await db.close()
  await embedded.stop()
  account = resolveAccount(pgDataOf(home))
  binaries = prepareBinaries(home, account, log)
})

afterEach(async () => {
  await node?.destroy()
  node = undefined
  await stopServer()
  rmSync(home, { recursive: true, force: true, maxRetries: 3 })
})

async function startServer(): Promise<void> {
  const port = Number(new URL(url).port)
  const server = await startPostmaster(home, account, binaries, ['fsync=off'], port)
  postmaster = server.pid
}

async function stopServer(): Promise<void> {
  if (postmaster > 0) await stopProcess(postmaster, () => isRunning(postmaster), 10_000)
  postmaster = 0
}

async function refusalOfLogin(address: string): Promise<string> {
  const client = await Pop3Client.connect(address)
  await client.line()
  await client.ask(`USER ${USER}`)
  const reply = await client.ask(`PASS ${PASSWORD}`)
  client.socket.destroy()
  return reply
}

/** What a sender is told that has mail for the user. */
async function replyToRecipient(address: string): Promise<string> {
  const client = await LineClient.connect(address)
  await client.reply()
  for (const command of ['LHLO sender.test', 'MAIL FROM:<>']) await client.ask(command)
  const reply = await client.ask(`RCPT TO:<${USER}>`)
  client.destroy()
  return reply
}

test('away at the start, there, away again, back: refused for now each time, never an empty maildrop', async () => {
  node = new NodeProcess({ env: { DATABASE_URL: url } })
  const { pop3, lmtp } = await node.addresses()
  const waiting = await node.record(/^waiting for the database/)
  expect(waiting.database).toBe(`${pgDataOf(home)}:${new URL(url).port}/popgres`)
  expect(await refusalOfLogin(pop3)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await replyToRecipient(lmtp)).toMatch(/^451 /)

  await startServer()
  await node.record('the database is there')
  const client = await loginSoon(pop3, USER, PASSWORD)
  // A login may come in the middle of the first beat; what goes away must have been back.
  await node.record('the database is back')
  expect(await client.ask('STAT')).toMatch(/^\+OK 1 /)
  expect(await replyToRecipient(lmtp)).toMatch(/^250 /)

  const from = node.records.length
  await stopServer()
  expect(await client.ask('RETR 1')).toMatch(/^-ERR/)
  expect(await refusalOfLogin(pop3)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await replyToRecipient(lmtp)).toMatch(/^451 /)
  await node.record(/^the database does not answer/, from)

  await startServer()
  await node.record('the database is back', from)
  // The session lived through it, and its lease with it: PostgreSQL ended in order.
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
  const again = await loginSoon(pop3, USER, PASSWORD)
  expect(await again.ask('STAT')).toMatch(/^\+OK 1 /)
  expect(node.records.map(({ msg }) => msg)).not.toContainEqual(
    expect.stringMatching(/worker has ended/),
  )
  const password = new URL(url).password
  expect(JSON.stringify(node.records) + node.stderr).not.toContain(password)
})

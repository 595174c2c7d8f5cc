/**
 * A node whose DATABASE_URL names a primary and its synchronous replica, while the primary is killed
 * and the replica takes over: nothing is started again, and what was acknowledged is there.
 */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openProgram, type Program } from '../integration/admin/program.ts'
import { LineClient } from '../support/line-client.ts'
import { loginSoon } from '../support/login-soon.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import {
  type PostgresServer,
  type Replica,
  startPrimary,
  startReplica,
} from '../support/replica.ts'

const USER = 'fay@failover.test'
const PASSWORD = 'a password for both'

let primary: PostgresServer
let replica: Replica
let program: Program
let node: NodeProcess | undefined
let url: string

beforeEach(async () => {
  primary = await startPrimary()
  replica = await startReplica(primary, { isSynchronous: true })
  const own = new URL(primary.url)
  // The standby first: it is there, and no place to write to.
  const hosts = `127.0.0.1:${replica.server.port},127.0.0.1:${primary.port}`
  url = `postgres://${own.username}:${own.password}@${hosts}/popgres?target_session_attrs=read-write`
  program = openProgram({ DATABASE_URL: url })
  expect(await program.run(['migrate'])).toMatchObject({ status: 0, stderr: '' })
  expect(await program.run(['domain', 'add', 'failover.test'])).toMatchObject({ status: 0 })
  expect(await program.run(['user', 'add', USER, '--password-stdin'], PASSWORD)).toMatchObject({
    status: 0,
  })
})

afterEach(async () => {
  await node?.destroy()
  program.close()
  await replica.stop()
  await primary.stop()
})

/** @returns the reply to the message, or to what was refused before */
async function deliver(address: string, subject: string): Promise<string> {
  const client = await LineClient.connect(address)
  await client.reply()
  const commands = ['LHLO sender.test', 'MAIL FROM:<>', `RCPT TO:<${USER}>`, 'DATA']
  let reply = ''
  for (const command of [...commands, `Subject: ${subject}\r\n\r\n${subject}\r\n.`]) {
    reply = await client.ask(command)
    if (!/^[23]/.test(reply)) break
  }
  client.destroy()
  return reply
}

/** A sender comes again while it is told 4xx. */
async function deliverSoon(address: string, subject: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    const reply = await deliver(address, subject)
    if (reply.startsWith('250')) return
    if (!reply.startsWith('4') || tries > 500) throw new Error(reply)
  }
}

test('the replica takes over: logins and deliveries go on, an open session deletes nothing', async () => {
  node = new NodeProcess({ env: { DATABASE_URL: url } })
  const { pop3, lmtp } = await node.addresses()
  await deliverSoon(lmtp, 'before')
  const open = await loginSoon(pop3, USER, PASSWORD)
  expect(await open.ask('DELE 1')).toMatch(/^\+OK/)

  await primary.kill()
  const refused = await Pop3Client.connect(pop3)
  await refused.line()
  await refused.ask(`USER ${USER}`)
  expect(await refused.ask(`PASS ${PASSWORD}`)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await node.record(/^the database does not answer/)
  expect(await deliver(lmtp, 'lost')).toMatch(/^4/)

  await replica.promote()
  const client = await loginSoon(pop3, USER, PASSWORD)
  expect(await client.ask('STAT')).toMatch(/^\+OK 1 /)
  await deliverSoon(lmtp, 'after')
  // The leases were not replicated: whoever held one has lost it.
  expect(await open.ask('QUIT')).toMatch(/^-ERR/)
  expect(await client.ask('RETR 1')).toMatch(/^\+OK/)
  client.socket.destroy()
  expect(await program.json<{ octets: number }[]>(['message', 'list', USER])).toHaveLength(2)

  const records = JSON.stringify(node.records)
  expect(records).toContain(`127.0.0.1:${primary.port}: connect ECONNREFUSED`)
  expect(records).toContain(`127.0.0.1:${replica.server.port}: it is a standby`)
  expect(records + node.stderr).not.toContain(new URL(primary.url).password)
  expect(records).not.toMatch(/worker has ended/)
})

test('a node that meets standbys only waits and says so, and serves when one is promoted', async () => {
  await primary.kill()
  node = new NodeProcess({ env: { DATABASE_URL: url } })
  const waiting = await node.record(/^waiting for the database/)
  expect(waiting).toMatchObject({
    database: `127.0.0.1:${replica.server.port},127.0.0.1:${primary.port}/popgres`,
    error: { message: expect.stringMatching(/it is a standby; .*ECONNREFUSED/) },
  })
  const told = await program.run(['user', 'list', 'failover.test'])
  expect(told).toMatchObject({ status: 1, stderr: expect.stringMatching(/it is a standby; /) })
  await replica.promote()
  const { pop3 } = await node.addresses()
  expect(await (await loginSoon(pop3, USER, PASSWORD)).ask('STAT')).toMatch(/^\+OK 0 /)
})

/**
 * What a node says of itself over HTTP while its database comes and goes, its workers hang and die,
 * and it ends; and to whom.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { LineClient } from '../support/line-client.ts'
import { openLmtp, sendMail } from '../support/lmtp.ts'
import { loginSoon } from '../support/login-soon.ts'
import { NodeProcess, PROJECT } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { StatusPages } from '../support/status-pages.ts'
import { TcpProxy } from '../support/tcp-proxy.ts'

const PASSWORD = 'a password for status'

let database: TestDatabase
let proxy: TcpProxy
let url: string
let nodes: NodeProcess[]

beforeEach(async () => {
  database = await openTestDatabase()
  const through = new URL(servingUrl(database.url))
  proxy = await TcpProxy.open(Number(through.port))
  through.hostname = '127.0.0.1'
  through.port = String(proxy.port)
  url = through.toString()
  nodes = []
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  await proxy.close()
  await database.close()
})

function start(env: Record<string, string> = {}): NodeProcess {
  const node = new NodeProcess({
    env: { DATABASE_URL: url, POPGRES_HTTP_LISTEN: '127.0.0.1:0', ...env },
  })
  nodes.push(node)
  return node
}

/** `popgres health` with these settings. */
function health(env: Record<string, string>, ...args: string[]) {
  return new Promise<{ status: number; line: string }>((resolve) => {
    const main = join(PROJECT, 'dist/main.js')
    execFile(process.execPath, [main, 'health', ...args], { env }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code), line: stdout + stderr })
    })
  })
}

test('health says of a port that is another at each start that it cannot be asked', async () => {
  const { status, line } = await health({ POPGRES_HTTP_LISTEN: '127.0.0.1:0' })
  expect(`${status} ${line}`).toMatch(/^1 popgres: POPGRES_HTTP_LISTEN has port 0/)
})

test('ready while it serves, and why not: database away, draining; alive all the time', async () => {
  const node = start({ POPGRES_DRAIN_DELAY: '60' })
  const { pop3 } = await node.addresses()
  const pages = await StatusPages.of(node)
  await pages.until('/readyz', ({ status }) => status === 200)
  expect(await pages.ask('/readyz')).toEqual({ status: 200, text: 'ready\n' })
  expect(await pages.ask('/livez')).toEqual({ status: 200, text: 'alive\n' })

  proxy.cut(true)
  const away = await pages.until('/readyz', ({ status }) => status === 503)
  expect(away.text).toBe('not ready: the database does not answer\n')
  expect((await pages.ask('/livez')).status).toBe(200)
  expect((await pages.metrics()).get('popgres_node_ready')).toBe(0)

  proxy.heal()
  await pages.until('/readyz', ({ status }) => status === 200)

  await addUser(database.db, 'alice@status.test', { password: PASSWORD })
  node.child.kill('SIGTERM')
  const stopping = await pages.until('/readyz', ({ status }) => status === 503)
  expect(stopping.text).toBe('not ready: this node is stopping\n')
  expect((await pages.ask('/livez')).status).toBe(200)
  // Balancers need time to see that: who comes meanwhile is served.
  const late = await loginSoon(pop3, 'alice@status.test', PASSWORD)
  expect(await late.ask('QUIT')).toMatch(/^\+OK/)
  node.child.kill('SIGKILL')
  await node.exited
})

test('a database that swallows everything is away before a statement times out', async () => {
  const node = start({ POPGRES_WORKERS: '1' })
  await node.addresses()
  const pages = await StatusPages.of(node)
  await pages.until('/readyz', ({ status }) => status === 200)
  proxy.swallowAnswers()
  const { text } = await pages.until('/readyz', ({ status }) => status === 503)
  expect(text).toBe('not ready: the database does not answer\n')
  expect(node.records.map(({ msg }) => msg)).not.toContain('the database does not answer: retrying')
})

test('one page for all workers, and what they counted does not fall when one hangs or dies', async () => {
  const users = ['alice@status.test', 'bob@status.test']
  for (const user of users) await addUser(database.db, user, { password: PASSWORD })
  const node = start({ POPGRES_DRAIN: '0' })
  const { pop3, lmtp } = await node.addresses()
  const [first = 0, second = 0] = await node.crew(2)
  const pages = await StatusPages.of(node)
  // One worker each: who is stopped accepts nothing.
  for (const asleep of [first, second]) {
    process.kill(asleep, 'SIGSTOP')
    const client = await Pop3Client.login(pop3, users[0] ?? '', PASSWORD)
    await client.ask('QUIT')
    await client.closed
    process.kill(asleep, 'SIGCONT')
  }
  const sender = await openLmtp({ connect: () => LineClient.connect(lmtp) } as never)
  await sendMail(sender, 'a@b.test', users, Buffer.from('Subject: x\r\n\r\nx\r\n'))
  sender.destroy()
  const OPENED = 'popgres_login_attempts_total{mechanism="password",result="opened"}'
  expect(await pages.untilMetric(OPENED, (value) => value >= 2)).toBe(2)
  const page = await pages.metrics()
  expect(page.get('popgres_delivery_copies_total{result="delivered"}')).toBe(2)
  expect(page.get('popgres_pop3_sessions_total{reason="quit"}')).toBe(2)
  expect(page.get('popgres_worker_up{worker="1"}')).toBe(1)
  expect(page.get('popgres_node_workers')).toBe(2)
  for (const worker of ['1', '2', 'supervisor'])
    expect(page.get(`popgres_worker_memory_bytes{worker="${worker}"}`)).toBeGreaterThan(1e7)

  process.kill(first, 'SIGSTOP')
  const hanging = await pages.metrics()
  expect(hanging.get(OPENED)).toBe(2)
  expect(
    ['1', '2'].map((worker) => hanging.get(`popgres_worker_up{worker="${worker}"}`)).sort(),
  ).toEqual([0, 1])
  const asleep = hanging.get('popgres_worker_up{worker="1"}') === 0 ? '1' : '2'
  expect(hanging.get(`popgres_worker_pid{worker="${asleep}"}`)).toBe(first)
  // The other one serves: the node is ready.
  expect((await pages.ask('/readyz')).status).toBe(200)

  const from = node.records.length
  process.kill(first, 'SIGKILL')
  await node.record('a worker serves', from)
  expect((await pages.metrics()).get(OPENED)).toBe(2)
  expect(
    await pages.untilMetric('popgres_node_worker_exits_total{end="died"}', (n) => n === 1),
  ).toBe(1)
  // In order: what it counted since anybody asked comes with it.
  const again = await Pop3Client.login(pop3, users[1] ?? '', PASSWORD)
  await again.ask('QUIT')
  await again.closed
  await node.record('connection closed', from)
  node.child.kill('SIGHUP')
  await pages.untilMetric('popgres_node_worker_exits_total{end="in order"}', (n) => n === 2)
  expect((await pages.metrics()).get(OPENED)).toBe(3)
})

test('not ready when every worker hangs', async () => {
  const node = start({ POPGRES_WORKERS: '1' })
  await node.addresses()
  const [worker = 0] = await node.crew(1)
  const pages = await StatusPages.of(node)
  await pages.until('/readyz', ({ status }) => status === 200)
  process.kill(worker, 'SIGSTOP')
  const { text } = await pages.until('/readyz', ({ status }) => status === 503)
  expect(text).toBe('not ready: no worker gives a sign of life\n')
  expect((await pages.ask('/livez')).status).toBe(200)
  process.kill(worker, 'SIGCONT')
  await pages.until('/readyz', ({ status }) => status === 200)
})

test('popgres health says the same, with a status', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'popgres-status-'))
  try {
    const env = { POPGRES_HTTP_LISTEN: `unix:${join(folder, 'http')}` }
    expect(await health(env)).toEqual({
      status: 1,
      line: expect.stringMatching(/^no answer at unix:.*ENOENT.*\n$/),
    })
    const node = start(env)
    await node.addresses()
    let answer = await health(env)
    for (let tries = 0; answer.status !== 0 && tries < 50; tries++) answer = await health(env)
    expect(answer).toEqual({ status: 0, line: 'ready\n' })
    expect(await health(env, '--live')).toEqual({ status: 0, line: 'alive\n' })
    proxy.cut(true)
    for (let tries = 0; answer.status === 0 && tries < 200; tries++) answer = await health(env)
    expect(answer).toEqual({ status: 1, line: 'not ready: the database does not answer\n' })
    expect(await health({ POPGRES_HTTP_LISTEN: '' })).toEqual({
      status: 1,
      line: 'popgres: POPGRES_HTTP_LISTEN is empty: nobody can be asked\n',
    })
  } finally {
    for (const node of nodes) await node.destroy()
    rmSync(folder, { recursive: true })
  }
})

test('an address that is taken costs the pages, not the mail', async () => {
  const taken = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => taken.once('listening', resolve))
  const { port } = taken.address() as { port: number }
  await addUser(database.db, 'alice@status.test', { password: PASSWORD })
  const node = start({ POPGRES_HTTP_LISTEN: `127.0.0.1:${port}` })
  const { pop3 } = await node.addresses()
  const { error } = await node.record('health and metrics are not served')
  expect((error as Error).message).toContain('change POPGRES_HTTP_LISTEN')
  const client = await Pop3Client.login(pop3, 'alice@status.test', PASSWORD)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  taken.close()
})

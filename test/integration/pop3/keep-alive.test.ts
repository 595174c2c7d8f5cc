/**
 * Peers that vanish without a word: the kernel probes them. Once by what it says itself of its
 * timers, once by a peer in a network namespace of its own whose link goes down.
 */
import { execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { startTestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
  await addUser(database.db, 'alice@example.test', { password: 'secret' })
})
afterAll(() => database.close())

const run = (command: string, ...args: string[]) => promisify(execFile)(command, args)

const works = (command: string, ...args: string[]): boolean => {
  try {
    execFileSync(command, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

const canAskKernel = works('ss', '--version')

/** What the kernel waits for on connections that fit the filter. */
const kernelTimers = async (filter: string): Promise<string> =>
  (await run('ss', '--no-header', '-tno', filter)).stdout

test.skipIf(!canAskKernel)('a silent peer is probed after a minute', async () => {
  const node = await startTestNode({ url: database.url })
  const [host, port] = node.address.split(':')
  const socket = connect(Number(port), host)
  await once(socket, 'data')
  const shown = await kernelTimers(`sport = :${port} and dport = :${socket.localPort}`)
  expect(shown).toMatch(/timer:\(keepalive,(1min|\d\dsec)/)
  socket.destroy()
  await node.stop()
})

const NAMESPACE = `popgres-test-${process.pid}`
const ip = (...args: string[]) => run('ip', ...args)
const inside = (...args: string[]) => ip('netns', 'exec', NAMESPACE, ...args)

const startInside = (program: readonly string[], command = 'ip') =>
  spawn(command, ['netns', 'exec', NAMESPACE, ...program], { stdio: ['ignore', 'pipe', 'inherit'] })

/** Of the network for benchmarks, RFC 2544: each process has four of its own. */
const addressOf = (end: 1 | 2): string =>
  `198.18.${(process.pid >> 6) & 255}.${(process.pid & 63) * 4 + end}`

/** A cable into a namespace, which is there until the test is over. */
async function layCable(): Promise<{ ours: string; theirs: string; link: string }> {
  const [link, peer] = [`pgt${process.pid}a`, `pgt${process.pid}b`]
  const [ours, theirs] = [addressOf(1), addressOf(2)]
  await ip('netns', 'add', NAMESPACE)
  onTestFinished(async () => void (await ip('netns', 'del', NAMESPACE)))
  await ip('link', 'add', link, 'type', 'veth', 'peer', 'name', peer, 'netns', NAMESPACE)
  onTestFinished(async () => void (await ip('link', 'del', link)))
  await ip('addr', 'add', `${ours}/30`, 'dev', link)
  await ip('link', 'set', link, 'up')
  await inside('ip', 'addr', 'add', `${theirs}/30`, 'dev', peer)
  await inside('ip', 'link', 'set', peer, 'up')
  return { ours, theirs, link: peer }
}

const canLayCables = works('ip', 'netns', 'add', `${NAMESPACE}-try`)
if (canLayCables) works('ip', 'netns', 'del', `${NAMESPACE}-try`)

const CLIENT = `
  const socket = require('node:net').connect(Number(process.argv[2]), process.argv[1])
  socket.write('USER alice@example.test\\r\\nPASS secret\\r\\nSTAT\\r\\n')
  socket.on('data', (chunk) => process.stdout.write(chunk))
`

// Probes begin after 1 s instead of 60 s; that they take 10 s more is libuv's doing, as it is then.
test.skipIf(!canLayCables || !canAskKernel)(
  'a peer whose line is cut ends, and gives its lease back',
  async () => {
    const { ours: host, theirs, link } = await layCable()
    const options = { host, keepAliveMs: 1_000, plaintextAuth: 'always' } as const
    const node = await startTestNode({ url: database.url, ...options })
    onTestFinished(() => node.stop())
    const port = node.address.split(':').at(-1) ?? ''
    const client = startInside([process.execPath, '-e', CLIENT, host, port])
    onTestFinished(() => void client.kill('SIGKILL'))
    let heard = ''
    while (!heard.includes('+OK 0 0')) heard += String((await once(client.stdout, 'data'))[0])
    // What the peer has not acknowledged is sent again and again, and nothing is probed meanwhile.
    while (!(await kernelTimers(`sport = :${port}`)).includes('keepalive'));
    await inside('ip', 'link', 'set', link, 'down')
    const before = performance.now()
    const closed = JSON.parse(await node.untilLogged('"connection closed"'))
    expect(closed).toMatchObject({ reason: 'gone', client: theirs })
    expect(performance.now() - before).toBeLessThan(60_000)
    expect(await database.db.kysely.selectFrom('sessions').selectAll().execute()).toEqual([])
  },
)

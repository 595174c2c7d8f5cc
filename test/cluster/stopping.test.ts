/**
 * The end of a node behind a load balancer, by POPGRES_DRAIN_DELAY and POPGRES_DRAIN, and what a
 * terminal has to do with it.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { NodeProcess, PROJECT } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { isRunning, processesWith, untilGone } from '../support/processes.ts'

const USER = 'carol@stopping.test'
const PASSWORD = 'a password for stopping'

let database: TestDatabase
let node: NodeProcess | undefined

beforeAll(async () => {
  database = await openTestDatabase()
  await addUser(database.db, USER, { password: PASSWORD })
})

afterEach(async () => {
  await node?.destroy()
  node = undefined
})

afterAll(() => database.close())

function start(env: Record<string, string>): NodeProcess {
  node = new NodeProcess({ env: { DATABASE_URL: servingUrl(database.url), ...env } })
  return node
}

async function greetedAt(address: string): Promise<void> {
  const client = await Pop3Client.connect(address)
  expect(await client.line()).toMatch(/^\+OK/)
  await client.ask('QUIT')
}

test('SIGTERM: not ready, then accepting no more, then sessions go on until they end', async () => {
  const stopping = start({ POPGRES_DRAIN_DELAY: '3', POPGRES_DRAIN: '60', POPGRES_WORKERS: '1' })
  const { pop3 } = await stopping.addresses()
  const carol = await Pop3Client.login(pop3, USER, PASSWORD)
  const begun = performance.now()
  const ended = stopping.stop()
  await stopping.record('not ready any more, still accepting')
  await greetedAt(pop3)
  await untilRefused(pop3)
  expect(performance.now() - begun).toBeGreaterThan(2_500)
  expect(await carol.ask('STAT')).toBe('+OK 0 0')
  expect(await carol.ask('QUIT')).toMatch(/^\+OK/)
  expect(await ended).toEqual({ status: 0, signal: null })
  expect(performance.now() - begun).toBeLessThan(30_000)
})

test('a second signal, or Ctrl-C, does not wait for any of it', async () => {
  const env = { POPGRES_DRAIN_DELAY: '3600', POPGRES_DRAIN: '3600', POPGRES_WORKERS: '1' }
  const hurried = start(env)
  const { pop3 } = await hurried.addresses()
  const carol = await Pop3Client.login(pop3, USER, PASSWORD)
  const ended = hurried.stop()
  await hurried.record('not ready any more, still accepting')
  await carol.ask('NOOP')
  await again(hurried)
  expect((await ended).status).toBe(0)
  await carol.closed

  const interrupted = start(env)
  await interrupted.addresses()
  expect(await interrupted.stop('SIGINT')).toEqual({ status: 0, signal: null })
})

/** Within a second of the first a signal is taken for the same: a person presses again. */
async function again(of: NodeProcess): Promise<void> {
  await untilGone(() => {
    of.child.kill('SIGTERM')
    return !of.records.some(({ msg }) => msg === 'ending at once')
  })
}

async function untilRefused(address: string): Promise<void> {
  for (;;) {
    const client = await Pop3Client.connect(address).catch((error: Error) => error.message)
    if (typeof client === 'string') {
      expect(client).toContain('ECONNREFUSED')
      return
    }
    // It may have been accepted by the kernel alone.
    await Promise.race([client.line().catch(() => ''), client.closed])
    client.socket.destroy()
  }
}

const hasScript = spawnSync('script', ['--version']).status === 0

const LOG = 'log'

/** A node in a terminal of its own, as somebody types its command. */
class Terminal {
  readonly place = mkdtempSync(join(tmpdir(), 'popgres-terminal-'))
  readonly #emulator: ChildProcess

  /** @param output of the command, if it is not to go to the terminal */
  constructor(env: Record<string, string>, output = '') {
    const serve = `exec '${process.execPath}' '${join(PROJECT, 'dist/main.js')}' serve`
    this.#emulator = spawn('script', ['-q', '-f', '-c', `${serve} ${output}`, 'screen'], {
      cwd: this.place,
      stdio: ['pipe', 'ignore', 'ignore'],
      env: {
        PATH: process.env.PATH,
        ...env,
        POPGRES_POP3_LISTEN: '127.0.0.1:0',
        POPGRES_POP3S_LISTEN: '',
        POPGRES_LMTP_LISTEN: '',
        POPGRES_HTTP_LISTEN: '',
        POPGRES_WORKERS: '1',
      },
    })
  }

  /** The node's process, once it has logged that; what is on the screen ends with the terminal. */
  async pidAfter(message: string): Promise<number> {
    const record = (): { pid: number } | undefined =>
      ['screen', LOG]
        .map((file) => readFileSync(join(this.place, file), { flag: 'a+' }).toString())
        .flatMap((text) => text.split('\n'))
        .filter((line) => line.includes(`"msg":"${message}"`))
        .map((line) => JSON.parse(line))[0]
    await untilGone(() => record() === undefined, 30_000)
    return record()?.pid ?? 0
  }

  /** Its window is closed. */
  async close(): Promise<void> {
    this.#emulator.kill('SIGKILL')
    if (this.#emulator.exitCode === null && this.#emulator.signalCode === null)
      await once(this.#emulator, 'exit')
  }
}

let terminal: Terminal | undefined

afterEach(async () => {
  await terminal?.close()
  if (terminal !== undefined) rmSync(terminal.place, { recursive: true })
  terminal = undefined
})

test.runIf(hasScript)(
  'SIGHUP in a terminal reloads; when the terminal closes the node ends',
  async () => {
    terminal = new Terminal({ DATABASE_URL: servingUrl(database.url) }, `> ${LOG}`)
    await terminal.pidAfter('a worker serves')
    const pid = await terminal.pidAfter('starting')
    process.kill(pid, 'SIGHUP')
    await terminal.pidAfter('reloaded')
    expect(isRunning(pid)).toBe(true)
    await terminal.close()
    await terminal.pidAfter('ended')
    await untilGone(() => isRunning(pid), 20_000)
  },
)

test.runIf(hasScript)('a closed terminal takes the embedded PostgreSQL along', async () => {
  terminal = new Terminal({ POPGRES_DATA_DIR: 'data' })
  chmodSync(terminal.place, 0o755)
  const data = join(terminal.place, 'data')
  const pid = await terminal.pidAfter('starting')
  await terminal.pidAfter('a worker serves')
  expect(processesWith(data).length).toBeGreaterThan(0)
  await terminal.close()
  await untilGone(() => isRunning(pid), 20_000)
  expect(processesWith(data)).toEqual([])
  expect(existsSync(join(data, 'supervisor.lock'))).toBe(false)
})

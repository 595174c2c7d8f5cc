/**
 * A whole node as an operator starts it: `node dist/main.js serve` in a process of its own. Tests wait
 * for lines of its log, for its sockets and for its end, never for time.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')
const WAIT_MS = 40_000

/** One line of the log. */
export interface LogRecord {
  msg: string
  level: string
  pid: number
  [field: string]: unknown
}

export interface NodeProcessOptions {
  /** DATABASE_URL and POPGRES_… settings; undefined: not even what a test usually has. */
  env?: Record<string, string | undefined>
  cwd?: string
  uid?: number
  gid?: number
  /** Directory of the clone; default: this project. */
  clone?: string
  /** Options of node itself; its workers have them too. */
  nodeOptions?: readonly string[]
}

export interface Ending {
  status: number | null
  signal: NodeJS.Signals | null
}

export class NodeProcess {
  readonly child: ChildProcess
  readonly records: LogRecord[] = []
  readonly exited: Promise<Ending>
  stderr = ''
  #waiters = new Set<() => void>()
  #ending: Ending | undefined

  constructor(options: NodeProcessOptions) {
    const main = join(options.clone ?? PROJECT, 'dist', 'main.js')
    if (!existsSync(main)) throw new Error(`${main} is missing: npm run build`)
    this.child = spawn(process.execPath, [...(options.nodeOptions ?? []), main, 'serve'], {
      cwd: options.cwd ?? '/',
      env: {
        PATH: process.env.PATH ?? '',
        POPGRES_POP3_LISTEN: '127.0.0.1:0',
        POPGRES_POP3S_LISTEN: '127.0.0.1:0',
        POPGRES_LMTP_LISTEN: '127.0.0.1:0',
        POPGRES_HTTP_LISTEN: '',
        POPGRES_WORKERS: '2',
        ...options.env,
      },
      ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.gid ?? options.uid }),
      // A process group of its own, as a terminal makes one: Ctrl-C is a signal to all of it.
      detached: true,
    })
    const { stdout, stderr } = this.child
    if (stdout === null || stderr === null) throw new Error('a node is started with pipes')
    createInterface({ input: stdout }).on('line', (line) => {
      this.records.push(line.startsWith('{') ? JSON.parse(line) : { msg: line, level: '', pid: 0 })
      this.#wake()
    })
    stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
      this.#wake()
    })
    this.exited = new Promise((done) => {
      this.child.once('close', (status, signal) => {
        this.#ending = { status, signal }
        done(this.#ending)
        this.#wake()
      })
    })
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error('the node was not started')
    return this.child.pid
  }

  /**
   * The first record from `from` on with that message, in the past or the future.
   * @throws if the node ends before, or takes too long
   */
  async record(message: string | RegExp, from = 0): Promise<LogRecord> {
    const matches = (record: LogRecord): boolean =>
      typeof message === 'string' ? record.msg === message : message.test(record.msg)
    await this.#until(`the log line ${message}`, () => this.records.slice(from).some(matches))
    return this.records.slice(from).find(matches) as LogRecord
  }

  /** Listening addresses, once it serves. */
  async addresses(): Promise<{ pop3: string; pop3s: string; lmtp: string }> {
    await this.#until('serving', () => /\n {2}LMTP +(.+)\n/.test(this.stderr))
    const [, pop3 = ''] = /\n {2}POP3 +(.+)\n/.exec(this.stderr) ?? []
    const [, pop3s = ''] = /\n {2}POP3S +(.+)\n/.exec(this.stderr) ?? []
    const [, lmtp = ''] = /\n {2}LMTP +(.+)\n/.exec(this.stderr) ?? []
    return { pop3, pop3s, lmtp }
  }

  /** Of the demo user; printed at a first start only. */
  demoPassword(): string {
    const password = /password {2}(\S+)/.exec(this.stderr)?.[1]
    if (password === undefined) throw new Error(`no demo password in: ${this.stderr}`)
    return password
  }

  /** Pids of the workers, once that many serve. */
  async crew(count: number): Promise<number[]> {
    await this.#until(`${count} workers`, () => this.#workers().length === count)
    return this.#workers()
  }

  #workers(): number[] {
    const pids = (message: string): number[] =>
      this.records.filter(({ msg }) => msg.startsWith(message)).map(({ worker }) => Number(worker))
    const ended = new Set(pids('a worker has ended'))
    return pids('a worker serves').filter((pid) => !ended.has(pid))
  }

  /** Ends it in order. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Ending> {
    if (this.#ending === undefined) this.child.kill(signal)
    return this.exited
  }

  /** For `afterEach`: nothing is left, whatever the test did. */
  async destroy(): Promise<void> {
    if (this.#ending !== undefined) return
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 15_000)
    await this.stop()
    clearTimeout(timer)
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter()
  }

  #until(what: string, isDone: () => boolean): Promise<void> {
    return new Promise((done, fail) => {
      const give = (why: string): void => {
        finish()
        const log = this.records.map((record) => JSON.stringify(record)).join('\n')
        fail(new Error(`no ${what}: ${why}\n${this.stderr}\n${log}`))
      }
      const timer = setTimeout(() => give('it takes too long'), WAIT_MS)
      const check = (): void => {
        if (isDone()) {
          finish()
          done()
        } else if (this.#ending !== undefined) give(`the node ended (${this.#ending.status})`)
      }
      const finish = (): void => {
        clearTimeout(timer)
        this.#waiters.delete(check)
      }
      this.#waiters.add(check)
      check()
    })
  }
}

/**
 * A real MTA from Debian's packages in a root directory of its own (make-root.sh), run by chroot with
 * the files of deploy/mta/ in their places. Roots are made once in build/ and copied for each run.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { describeWhere } from '../clients.ts'

const PROJECT = resolve(import.meta.dirname, '../../..')
const ROOTS = join(PROJECT, 'build', 'mta')
const RUN_DEADLINE_MS = 30_000
const STOP_DEADLINE_MS = 20_000

/** `describe` for the tests of an MTA; skipped by name where it cannot be had. */
export function describeMta(name: string, packages: readonly string[], body: () => void): void {
  describeWhere(name, prepare(name, packages), body)
}

/** @returns why there is no root of it */
function prepare(name: string, packages: readonly string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'an MTA changes users: run as root'
  if (existsSync(join(ROOTS, name))) return undefined
  const script = join(import.meta.dirname, 'make-root.sh')
  const { status, stderr } = spawnSync('sh', [script, join(ROOTS, name), ...packages])
  const line = stderr.toString().trim().split('\n').at(-1)
  return status === 0 ? undefined : `its packages could not be unpacked: ${line}`
}

/** A copy of an MTA's root, with a daemon that runs in it. */
export class MtaRoot {
  readonly directory: string
  #daemon: ChildProcess | undefined
  #told = ''

  /** @param name as given to `describeMta` */
  constructor(name: string) {
    this.directory = mkdtempSync(join(tmpdir(), `popgres-${name}-`))
    execFileSync('cp', ['-a', `${join(ROOTS, name)}/.`, this.directory])
    chmodSync(this.directory, 0o755)
  }

  /** @param group of a file that not everybody may read */
  write(file: string, text: string, group?: number): void {
    const path = join(this.directory, file)
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
    chownSync(path, 0, group ?? 0)
    chmodSync(path, group === undefined ? 0o644 : 0o640)
  }

  makeDirectory(directory: string, mode: number, user: number, group = user): void {
    const path = join(this.directory, directory)
    mkdirSync(path, { recursive: true })
    chownSync(path, user, group)
    chmodSync(path, mode)
  }

  /** @returns '' if it is not there */
  read(file: string): string {
    const path = join(this.directory, file)
    return existsSync(path) ? readFileSync(path, 'utf8') : ''
  }

  /** @throws with what it said, unless its status is 0 */
  async run(command: string, ...args: string[]): Promise<void> {
    const child = spawn('chroot', [this.directory, command, ...args], { timeout: RUN_DEADLINE_MS })
    let told = ''
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => {
        told += chunk.toString('utf8')
      })
    const [status] = await once(child, 'close')
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${told}`)
  }

  start(command: string, ...args: string[]): void {
    // Its own process group: whatever it has started can be ended with it.
    const daemon = spawn('chroot', [this.directory, command, ...args], { detached: true })
    const hear = (chunk: Buffer): void => {
      this.#told += chunk.toString('utf8')
    }
    daemon.stdout.on('data', hear)
    daemon.stderr.on('data', hear)
    this.#daemon = daemon
  }

  /** What the daemon has written, for a test that failed. */
  told(): string {
    return this.#told
  }

  /** @param signal SIGTERM to the daemon, SIGKILL to it and all that it has started */
  async stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const daemon = this.#daemon
    this.#daemon = undefined
    if (daemon?.pid === undefined || daemon.exitCode !== null) return
    const ended = once(daemon, 'exit')
    if (signal === 'SIGTERM') daemon.kill(signal)
    else this.#killAll(daemon.pid)
    const timer = setTimeout(() => this.#killAll(daemon.pid ?? 0), STOP_DEADLINE_MS)
    await ended
    clearTimeout(timer)
    this.#killAll(daemon.pid)
  }

  /** By its group, and whoever has left that one: they are known by their root. */
  #killAll(group: number): void {
    for (const pid of [-group, ...this.#pids()])
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended.
      }
  }

  #pids(): number[] {
    const script = 'for p in /proc/[0-9]*; do echo "$p $(readlink $p/root)"; done'
    const lines = execFileSync('sh', ['-c', script], { encoding: 'utf8' }).split('\n')
    const own = lines.filter((line) => line.endsWith(` ${this.directory}`))
    return own.map((line) => Number(/^\/proc\/(\d+) /.exec(line)?.[1]))
  }

  async close(): Promise<void> {
    await this.stop('SIGKILL')
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/**
 * A file of deploy/mta/, with what is this machine's own changed in it.
 * @param changes what must stand in it, and what stands there instead
 */
export function deployed(file: string, changes: Readonly<Record<string, string>>): string {
  let text = readFileSync(join(PROJECT, 'deploy', 'mta', file), 'utf8')
  for (const [was, is] of Object.entries(changes)) {
    if (!text.includes(was)) throw new Error(`deploy/mta/${file} has no ${was}`)
    text = text.replaceAll(was, is)
  }
  return text
}

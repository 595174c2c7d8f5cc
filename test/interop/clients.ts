/**
 * Foreign mail clients: which are installed, and running one. A client that is missing has its
 * tests skipped by name; with INTEROP_REQUIRE_ALL (as .ci/run sets it) it is a failure instead.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'vitest'
import type { InteropServer } from './server.ts'

export interface ClientResult {
  /** Exit status; -1 if a signal ended it. */
  status: number
  stdout: Buffer
  stderr: string
}

const RUN_DEADLINE_MS = 100_000

/** @param client a command, or a module of Perl's */
function isInstalled(client: string): boolean {
  const probe = client.includes('::') ? `perl -M${client} -e 1` : `command -v ${client}`
  return spawnSync('sh', ['-c', probe]).status === 0
}

/** `describe` for the tests of some clients, all of which must be there. */
export function describeClients(title: string, clients: string[], body: () => void): void {
  const missing = clients.filter((client) => !isInstalled(client))
  const why = missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`
  describeWhere(title, why, body)
}

/** @param why it cannot run here; undefined: it can */
export function describeWhere(title: string, why: string | undefined, body: () => void): void {
  if (why === undefined) {
    describe(title, body)
    return
  }
  const reason = `${title}: ${why}`
  if (process.env.INTEROP_REQUIRE_ALL !== undefined) {
    it(reason, () => {
      throw new Error(reason)
    })
    return
  }
  console.warn(`SKIPPED ${reason}`)
  describe.skip(reason, body)
}

export async function runClient(
  command: string,
  args: readonly string[],
  options: { input?: Buffer | string; env?: NodeJS.ProcessEnv } = {},
): Promise<ClientResult> {
  const child = spawn(command, args, {
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.env },
    timeout: RUN_DEADLINE_MS,
    killSignal: 'SIGKILL',
  })
  const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []]
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  child.stdin.on('error', () => {}) // it may end without reading all
  child.stdin.end(options.input)
  const [status] = (await once(child, 'close')) as [number | null]
  return {
    status: status ?? -1,
    stdout: Buffer.concat(stdout),
    stderr: Buffer.concat(stderr).toString('utf8'),
  }
}

/** A directory of one client's own, gone when the server stops. */
export function makeHome(server: InteropServer, client: string): string {
  return mkdtempSync(join(server.directory, `${client}-`))
}

/** A Maildir that a client delivers into. */
export class Maildir {
  readonly path: string

  constructor(home: string) {
    this.path = join(home, 'Maildir')
    for (const name of ['cur', 'new', 'tmp']) mkdirSync(join(this.path, name), { recursive: true })
  }

  /** What has been delivered so far, lines ended by LF. */
  copies(): Buffer[] {
    const files = ['cur', 'new'].flatMap((name) => {
      const directory = join(this.path, name)
      return readdirSync(directory).map((file) => join(directory, file))
    })
    return files.map((file) => readFileSync(file))
  }
}

/** A directory that a client delivers into by a shell command. */
export class CopyFolder {
  readonly #path: string
  /** Keeps its standard input as the next copy. */
  readonly command: string

  constructor(home: string) {
    this.#path = join(home, 'copies')
    this.command = `cat > ${this.#path}/$(ls ${this.#path} | wc -l)`
    mkdirSync(this.#path)
  }

  /** In the order of delivery. */
  copies(): Buffer[] {
    const names = readdirSync(this.#path)
    return names.map((_, index) => readFileSync(join(this.#path, String(index))))
  }
}

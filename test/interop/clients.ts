/**
 * Foreign mail clients: which are installed, and running one. A client that is missing has its
 * tests skipped by name; with INTEROP_REQUIRE_ALL (as .ci/run sets it) it is a failure instead.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { describe, it } from 'vitest'

export interface ClientResult {
  /** Exit status; -1 if a signal ended it. */
  status: number
  stdout: Buffer
  stderr: string
}

const RUN_DEADLINE_MS = 60_000

function isInstalled(client: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${client}`]).status === 0
}

/** `describe` for the tests of some clients, all of which must be there. */
export function describeClients(title: string, clients: string[], body: () => void): void {
  const missing = clients.filter((client) => !isInstalled(client))
  if (missing.length === 0) {
    describe(title, body)
    return
  }
  const reason = `${title}: not installed: ${missing.join(', ')}`
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

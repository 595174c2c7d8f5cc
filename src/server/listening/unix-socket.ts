/**
 * Listening on a Unix socket. A file left behind by a process that was killed is replaced; one that
 * somebody answers on, or that is no socket, is not. Who may connect is decided by the directory it
 * lies in: the socket itself is open to all, since the MTA runs under another account. Closing
 * removes it.
 */
import { statSync, unlinkSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { connect, type Server } from 'node:net'

const MODE = 0o666

/** Workers of a cluster that start together may meet each other's attempts. */
const ATTEMPTS_MAX = 3

/** @throws the error of listen(2), EADDRINUSE if the path is taken for good */
export async function listenOnPath(server: Server, path: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await listen(server, path)
      break
    } catch (error) {
      const isTaken = codeOf(error) === 'EADDRINUSE'
      if (!isTaken || attempt === ATTEMPTS_MAX || !(await removeStale(path))) throw error
    }
  }
  await chmod(path, MODE)
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ path }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

/**
 * Removes the file if nobody answers on it. Looked at again right before, so that what another
 * worker has bound meanwhile stays.
 * @returns whether listening is worth another try
 */
async function removeStale(path: string): Promise<boolean> {
  const before = statSync(path, { throwIfNoEntry: false })
  if (before === undefined) return true
  if (!before.isSocket()) return false
  if (await isAnswered(path)) return true
  const now = statSync(path, { throwIfNoEntry: false })
  if (now?.ino === before.ino && now.ctimeMs === before.ctimeMs) unlinkSync(path)
  return true
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path })
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', (error) => {
      resolve(!['ECONNREFUSED', 'ENOENT'].includes(codeOf(error) ?? ''))
    })
  })
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}

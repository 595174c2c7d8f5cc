/**
 * Who is process N? A pid alone says nothing, as numbers are used again (in a container nearly at
 * once). These answers come from /proc where there is one, else from ps.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const hasProc = (): boolean => existsSync('/proc/self/stat')

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  return !isZombie(pid)
}

/** A dead child that nobody has waited for still has its number; init may be slow or missing. */
function isZombie(pid: number): boolean {
  return hasProc() && statFields(pid)?.[0] === 'Z'
}

/** A text that no other process with this pid ever has; undefined: there is no such process. */
export function processIdentity(pid: number): string | undefined {
  if (!isAlive(pid)) return undefined
  if (!hasProc()) return ps(pid, 'lstart=')
  const startedAt = statFields(pid)?.[19]
  const boot = readProc('sys/kernel/random/boot_id')?.trim()
  return startedAt === undefined ? undefined : `${boot} ${startedAt}`
}

/** The command line, arguments separated by NUL (by blanks where it comes from ps). */
export function commandLine(pid: number): string | undefined {
  return hasProc() ? readProc(`${pid}/cmdline`) : ps(pid, 'command=')
}

/** proc(5): the fields after the name, which may itself hold blanks and parentheses. */
function statFields(pid: number): string[] | undefined {
  const stat = readProc(`${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function readProc(path: string): string | undefined {
  try {
    return readFileSync(`/proc/${path}`, 'utf8')
  } catch {
    return undefined
  }
}

function ps(pid: number, column: string): string | undefined {
  try {
    return execFileSync('ps', ['-o', column, '-p', String(pid)], { encoding: 'utf8' }).trim()
  } catch {
    return undefined
  }
}

/** Whose child a process is; Linux only, which tests may assume. */
import { readdirSync, readFileSync } from 'node:fs'

/** Pids of the processes that `pid` has started and that have not ended. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && parentOf(name) === pid)
    .map(Number)
}

/** proc(5): state and parent come after the name, which may hold blanks and parentheses. */
function parentOf(pid: string): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return state === 'Z' ? 0 : Number(parent)
  } catch {
    return 0 // it has ended
  }
}

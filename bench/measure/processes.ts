/**
 * What a tree of processes has cost: CPU (user and system) and memory (PSS, so that shared pages
 * count once). A server's processes come and go, and those that are gone have cost CPU too: a
 * `ProcessGroup` is a cgroup (v2) of its own, which counts them all. Where cgroups cannot be
 * written, what /proc says of the living and of the children they have reaped is the best there is.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

const GROUP_PREFIX = 'popgres-bench-'

/** USER_HZ, which Linux has as 100 on every architecture that Node runs on. */
const MILLIS_PER_TICK = 10

/** @returns undefined if there is no such file, or its process is gone */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** Fields of /proc/<pid>/stat behind the name, which may hold blanks and brackets itself. */
function statOf(pid: number): string[] | undefined {
  const stat = read(`/proc/${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
}

function sum(numbers: Iterable<number>): number {
  let total = 0
  for (const number of numbers) total += number
  return total
}

/** The process with all its descendants now. */
function treeOf(pid: number): number[] {
  const children = new Map<number, number[]>()
  for (const entry of readdirSync('/proc')) {
    const parent = /^\d+$/.test(entry) ? statOf(Number(entry))?.[1] : undefined
    if (parent === undefined) continue
    const siblings = children.get(Number(parent)) ?? []
    siblings.push(Number(entry))
    children.set(Number(parent), siblings)
  }
  const tree = [pid]
  for (const member of tree) tree.push(...(children.get(member) ?? []))
  return tree
}

/** @returns undefined if no cgroups of version 2 are mounted */
function mountOfCgroups(): string | undefined {
  return /^\S+ (\S+) cgroup2 /m.exec(read('/proc/mounts') ?? '')?.[1]
}

/** Directory of the process's cgroup. */
function cgroupOf(pid: number | 'self'): string | undefined {
  const mount = mountOfCgroups()
  const path = /^0::(.*)$/m.exec(read(`/proc/${pid}/cgroup`) ?? '')?.[1]
  return mount === undefined || path === undefined ? undefined : join(mount, path)
}

function cpuMillisOfGroup(group: string): number {
  return Number(/^usage_usec (\d+)$/m.exec(read(join(group, 'cpu.stat')) ?? '')?.[1] ?? 0) / 1_000
}

/** User, system, and the same of its children that have ended and been waited for. */
function cpuMillisOfProcess(pid: number): number {
  return sum((statOf(pid) ?? []).slice(11, 15).map(Number)) * MILLIS_PER_TICK
}

/** CPU so far of these processes: of their whole group, if they are in a group of ours. */
export function cpuMillis(pids: readonly number[]): number {
  const groups = new Set<string>()
  const alone: number[] = []
  for (const pid of pids) {
    const group = cgroupOf(pid)
    if (group?.includes(GROUP_PREFIX)) groups.add(group)
    else alone.push(pid)
  }
  return sum([...groups].map(cpuMillisOfGroup)) + sum(alone.map(cpuMillisOfProcess))
}

/** Memory now; a page that n processes share counts 1/n in each. */
export function pssKib(pids: readonly number[]): number {
  const pss = (pid: number): number =>
    Number(/^Pss:\s+(\d+) kB$/m.exec(read(`/proc/${pid}/smaps_rollup`) ?? '')?.[1] ?? 0)
  return sum(pids.map(pss))
}

/** The processes of one server, or of one database. */
export class ProcessGroup {
  /** undefined: cgroups cannot be written here */
  readonly #directory: string | undefined
  readonly #roots = new Set<number>()

  /** @param name unique among the groups of this process */
  constructor(name: string) {
    const own = cgroupOf('self')
    const directory = join(
      own ?? '',
      `${GROUP_PREFIX}${process.pid}-${name.replaceAll(/\W/g, '-')}`,
    )
    try {
      if (own !== undefined) mkdirSync(directory)
      this.#directory = own === undefined ? undefined : directory
    } catch {
      this.#directory = undefined
    }
  }

  /** A child that is in the group from its first instruction. */
  spawn(command: string, args: readonly string[], options: SpawnOptions = {}): ChildProcess {
    const enter = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    const child =
      this.#directory === undefined
        ? spawn(command, args, options)
        : spawn('/bin/sh', ['-c', enter, this.#directory, command, ...args], options)
    if (child.pid !== undefined) this.#roots.add(child.pid)
    return child
  }

  /** Takes in a process that others have started, with its descendants. */
  adopt(pid: number): void {
    this.#roots.add(pid)
    if (this.#directory === undefined) return
    // Twice: what was born while the first round went on is in the second.
    for (const member of [...treeOf(pid), ...treeOf(pid)]) {
      try {
        writeFileSync(join(this.#directory, 'cgroup.procs'), String(member))
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  pids(): number[] {
    if (this.#directory === undefined) return [...new Set([...this.#roots].flatMap(treeOf))]
    const members = read(join(this.#directory, 'cgroup.procs')) ?? ''
    return members.split('\n').filter(Boolean).map(Number)
  }

  cpuMillis(): number {
    return this.#directory === undefined
      ? cpuMillis(this.pids())
      : cpuMillisOfGroup(this.#directory)
  }

  pssKib(): number {
    return pssKib(this.pids())
  }

  /** Ends what is left of the group. */
  async close(): Promise<void> {
    for (let pids = this.pids(); pids.length > 0; pids = this.pids()) {
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It has ended meanwhile.
        }
      }
      this.#roots.clear()
      await delay(20)
    }
    if (this.#directory !== undefined) rmdirSync(this.#directory)
  }
}

/**
 * Runs one job in a generator, a process that does one at a time, or shared among several that
 * begin together.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { FromGenerator, Job, JobResult, JobWatcher, ToGenerator } from './job.ts'

const GENERATOR = fileURLToPath(new URL('generator.js', import.meta.url))

/** They stay: their code is compiled, as that of the servers is; of the oldest most. */
const generators: ChildProcess[] = []
const busy = new Set<ChildProcess>()

function freeGenerator(): ChildProcess {
  const free = generators.find((child) => !busy.has(child))
  if (free !== undefined) return free
  const child = fork(GENERATOR, { execArgv: ['--max-semi-space-size=64'] })
  generators.push(child)
  return child
}

/** @throws with the first wrong reply */
export async function runJob(job: Job, watcher: JobWatcher = {}): Promise<JobResult> {
  const child = freeGenerator()
  busy.add(child)
  child.ref()
  child.channel?.ref()
  const result = await answerOf(child, job, watcher).catch((error) => {
    child.kill() // connections may be open
    throw error
  })
  for (const event of ['message', 'error', 'exit']) child.removeAllListeners(event)
  child.unref()
  child.channel?.unref()
  busy.delete(child)
  return result
}

function answerOf(child: ChildProcess, job: Job, watcher: JobWatcher): Promise<JobResult> {
  const tell = (message: ToGenerator): void => void child.send(message)
  return new Promise((resolve, reject) => {
    child.on('message', (message: FromGenerator) => {
      try {
        if (message.kind === 'begin') watcher.onBegin?.()
        else if (message.kind === 'end') watcher.onEnd?.()
        else if (message.kind === 'result') resolve(message.result)
        else if (message.kind === 'failed') reject(new Error(message.why))
        else {
          const isSeen = watcher.onReady?.(message.sessions) ?? Promise.resolve()
          isSeen.then(() => tell({ kind: 'go' }), reject)
        }
      } catch (error) {
        reject(error)
      }
    })
    child.once('error', reject)
    child.once('exit', (status, signal) => {
      reject(new Error(`the generator ended (${signal ?? status}) without a result`))
    })
    tell({ kind: 'job', job })
  })
}

/**
 * Where one generator would take a whole core: its users and connections shared among `count`.
 * @throws with the first wrong reply
 */
export async function runShared(
  job: Job,
  count: number,
  watcher: JobWatcher = {},
): Promise<JobResult> {
  const share = Math.floor(job.users.count / count)
  const isReady = meetingOf(count)
  // They begin together; what the server has done is read when the last begins and the first ends.
  let begun = 0
  let ended = 0
  const shared: JobWatcher = {
    onReady: isReady,
    onBegin: () => {
      if (++begun === count) watcher.onBegin?.()
    },
    onEnd: () => {
      if (++ended === 1) watcher.onEnd?.()
    },
  }
  const results = await Promise.all(
    Array.from({ length: count }, (_, at) =>
      runJob(
        {
          ...job,
          isShared: true,
          users: { from: job.users.from + at * share, count: share },
          atOnce: Math.ceil(job.atOnce / count),
        },
        shared,
      ),
    ),
  )
  return results.reduce(added)
}

/** Each comer waits until there are `count` of them. */
function meetingOf(count: number): () => Promise<void> {
  let come = 0
  let open = (): void => {}
  const isOpen = new Promise<void>((resolve) => {
    open = resolve
  })
  return () => {
    if (++come === count) open()
    return isOpen
  }
}

/** What both have done in the same seconds; details are counts. */
function added(one: JobResult, other: JobResult): JobResult {
  const details = { ...one.details }
  for (const [name, value] of Object.entries(other.details))
    details[name] = (details[name] ?? 0) + value
  return {
    operations: one.operations + other.operations,
    seconds: Math.max(one.seconds, other.seconds),
    octets: one.octets + other.octets,
    operationsInAll: one.operationsInAll + other.operationsInAll,
    octetsInAll: one.octetsInAll + other.octetsInAll,
    sessions: one.sessions + other.sessions,
    latencyMs: {
      p50: (one.latencyMs.p50 + other.latencyMs.p50) / 2,
      p99: Math.max(one.latencyMs.p99, other.latencyMs.p99),
    },
    details,
    cpuSeconds: one.cpuSeconds + other.cpuSeconds,
  }
}

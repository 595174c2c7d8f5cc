/** Runs one job in a generator process of its own. */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { FromGenerator, Job, JobResult, JobWatcher, ToGenerator } from './job.ts'

const GENERATOR = fileURLToPath(new URL('generator.js', import.meta.url))

/** @throws with the first wrong reply */
export function runJob(job: Job, watcher: JobWatcher = {}): Promise<JobResult> {
  const child = fork(GENERATOR, { execArgv: ['--max-semi-space-size=64'] })
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
        child.kill()
      }
    })
    child.once('error', reject)
    child.once('exit', (status, signal) => {
      reject(new Error(`the generator ended (${signal ?? status}) without a result`))
    })
    tell({ kind: 'job', job })
  })
}

/** From a job to the load that does it. */
import type { Job, JobResult, JobWatcher } from './job.ts'
import { deliver, mixedDay } from './loads/deliveries.ts'
import { listBig, listBigAgain } from './loads/maildrop.ts'
import { idle, pollEach, polls, rememberSessions, warmUp } from './loads/polls.ts'
import {
  deleteAll,
  retrieve,
  retrieveAndDelete,
  retrieveLarge,
  retrieveLargeAgain,
  retrievePipelined,
} from './loads/retrievals.ts'
import { Stage } from './stage.ts'
import { Window } from './window.ts'

/** @throws with the first reply that was wrong */
export async function perform(job: Job, watcher: JobWatcher = {}): Promise<JobResult> {
  const window = new Window(job, watcher)
  try {
    await window.orFailure(run(new Stage(job, window), watcher))
    return window.result()
  } finally {
    window.end()
  }
}

async function run(stage: Stage, watcher: JobWatcher): Promise<void> {
  const { job, window } = stage
  const onReady = watcher.onReady ?? (async () => {})
  switch (job.load) {
    case 'warm-up':
      return warmUp(stage, { hasUidl: true, endpoint: job.pop3 })
    case 'poll':
      window.open()
      return window.until(polls(stage, { hasUidl: true, endpoint: job.pop3 }))
    case 'poll-stat':
      window.open()
      return window.until(polls(stage, { hasUidl: false, endpoint: job.pop3 }))
    case 'poll-tls':
      if (job.isShared) await onReady(0)
      window.open()
      return window.until(polls(stage, { hasUidl: true, endpoint: stage.pop3s }))
    case 'poll-tls-resumed': {
      const kind = { hasUidl: true, endpoint: stage.pop3s, tlsMemoryOf: rememberSessions() }
      await Promise.all(pollEach(stage, kind))
      if (job.isShared) await onReady(0)
      window.open()
      return window.until(polls(stage, kind))
    }
    case 'cold-login':
      window.begin()
      return window.until(pollEach(stage, { hasUidl: false, endpoint: job.pop3 }))
    case 'retr':
      return retrieve(stage)
    case 'retr-pipelined':
      return retrievePipelined(stage)
    case 'retr-dele':
      return retrieveAndDelete(stage)
    case 'quit':
      return deleteAll(stage)
    case 'big-maildrop':
      return listBig(stage)
    case 'big-maildrop-memory':
      return listBigAgain(stage, onReady)
    case 'large-message':
      return retrieveLarge(stage)
    case 'large-message-memory':
      return retrieveLargeAgain(stage, onReady)
    case 'idle':
      return idle(stage, job.pop3, onReady)
    case 'idle-tls':
      return idle(stage, stage.pop3s, onReady)
    case 'lmtp':
      return deliver(stage)
    case 'mixed-day':
      return mixedDay(stage)
  }
}

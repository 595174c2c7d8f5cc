/**
 * The load generator's process: takes one job after the other over IPC, says when its window begins
 * and ends (the caller reads the server's CPU then), and answers with a result, or with why it
 * failed: one wrong reply is enough.
 */
import type { FromGenerator, ToGenerator } from './job.ts'
import { perform } from './perform.ts'

let goOn: (() => void) | undefined
const send = (message: FromGenerator): void => void process.send?.(message)

process.on('message', (message: ToGenerator) => {
  if (message.kind === 'go') {
    goOn?.()
    return
  }
  perform(message.job, {
    onBegin: () => send({ kind: 'begin' }),
    onEnd: () => send({ kind: 'end' }),
    onReady: (sessions) =>
      new Promise((resolve) => {
        goOn = resolve
        send({ kind: 'ready', sessions })
      }),
  }).then(
    (result) => send({ kind: 'result', result }),
    (error: unknown) => send({ kind: 'failed', why: String(error) }),
  )
})
process.on('disconnect', () => process.exit(1))

/** A worker that hangs before it serves: it is ended, and another one comes. With real processes. */
import cluster from 'node:cluster'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { ToWorker } from '../../../src/cluster/worker-messages.ts'
import { WorkerSlot } from '../../../src/cluster/worker-slot.ts'

const WORKER = fileURLToPath(new URL('../../support/worker-that-hangs.mjs', import.meta.url))
/** Longer than a process takes to begin, on a busy machine too. */
const SERVES_WITHIN_MS = 3_000

let logged: { msg: string; worker?: number }[]
let slot: WorkerSlot
/** How many of the workers to come hang. */
let hanging: number

beforeEach(() => {
  logged = []
  cluster.setupPrimary({ exec: WORKER, args: [], execArgv: [] })
  slot = new WorkerSlot({
    log: pino({}, { write: (line) => logged.push(JSON.parse(line)) }),
    makeStart: () => startOf(hanging-- > 0),
    onNodesGone: () => {},
    servesWithinMs: SERVES_WITHIN_MS,
  })
})

afterEach(() => slot.stop({ patienceMs: 0, graceMs: 0 }))

function startOf(hangs: boolean): ToWorker {
  return {
    kind: 'start',
    nodeId: 'n',
    version: '0',
    settings: { HANGS: hangs ? 'yes' : 'no' },
    databaseUrl: '',
    secretKeysHex: undefined,
    ticketKeysHex: '',
    tlsFiles: undefined,
  }
}

const lines = (msg: RegExp) => logged.filter((line) => msg.test(line.msg))

test('at the start of the node another one is tried', async () => {
  hanging = 2
  expect((await slot.start()).pop3).toEqual(['here'])
  expect(lines(/^a worker hangs before it serves/)).toHaveLength(2)
  expect(lines(/^a worker serves/)).toHaveLength(1)
})

test('if all hang the start fails and says so', async () => {
  hanging = 9
  await expect(slot.start()).rejects.toThrow('a new worker does not come to serve')
  expect(lines(/^a worker hangs before it serves/)).toHaveLength(3)
})

test('one that was started for a dead one is replaced too', async () => {
  hanging = 0
  await slot.start()
  hanging = 1
  process.kill(Number(lines(/^a worker serves/)[0]?.worker), 'SIGKILL')
  await vi.waitFor(() => expect(lines(/^a worker serves/)).toHaveLength(2), 30_000)
  expect(lines(/^a worker hangs before it serves/)).toHaveLength(1)
  expect(lines(/^a worker has ended: starting another/)).toHaveLength(2)
})

/** What the probes are told, from the signs of life that workers give. Time is the timers' alone. */
import cluster, { type Worker } from 'node:cluster'
import { EventEmitter } from 'node:events'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Crew, type Member } from '../../../src/cluster/crew.ts'

/** A worker as the supervisor sees it. */
class FakeWorker extends EventEmitter {
  readonly id: number
  isLinked = true
  isConnected = (): boolean => this.isLinked

  constructor(id: number) {
    super()
    this.id = id
    cluster.emit('fork', this as unknown as Worker)
  }

  tell(message: object): void {
    cluster.emit('message', this as unknown as Worker, message)
  }

  pulse(hasDatabase = true, isServing = true): void {
    this.tell({ kind: 'pulse', isServing, hasDatabase })
  }

  exit(status: number): void {
    cluster.emit('exit', this as unknown as Worker, status, null)
  }
}

let crew: Crew
let isStopping: boolean
let gone: Member[]
let reported: number[]

beforeEach(() => {
  vi.useFakeTimers()
  isStopping = false
  gone = []
  reported = []
  crew = new Crew(
    () => isStopping,
    (_, number) => reported.push(number),
    (member) => gone.push(member),
  )
})
afterEach(() => {
  crew.close()
  vi.useRealTimers()
})

const readiness = () => {
  const health = crew.readiness()
  return health.isWell ? 'ready' : health.reason
}
const pass = (seconds: number, eachSecond = () => {}) => {
  for (let second = 0; second < seconds; second++) {
    vi.advanceTimersByTime(1_000)
    eachSecond()
  }
}

describe('ready', () => {
  test('when a worker serves and reaches the database, and not before', () => {
    expect(readiness()).toBe('no worker accepts connections')
    const worker = new FakeWorker(1)
    expect(readiness()).toBe('no worker accepts connections')
    worker.pulse(false)
    expect(readiness()).toBe('the database does not answer')
    worker.pulse(true)
    expect(readiness()).toBe('ready')
    worker.pulse(true, false)
    expect(readiness()).toBe('no worker accepts connections')
  })

  test('one worker is enough, be the others silent, dead or without a database', () => {
    const [first, second, third] = [1, 2, 3].map((id) => new FakeWorker(id))
    for (const worker of [first, second, third]) worker?.pulse()
    second?.pulse(false)
    third?.exit(1)
    pass(10, () => first?.pulse())
    expect(readiness()).toBe('ready')
    pass(4)
    expect(readiness()).toBe('ready')
    pass(1)
    expect(readiness()).toBe('no worker gives a sign of life')
    second?.pulse(true)
    expect(readiness()).toBe('ready')
  })

  test('no longer, from the order to stop on', () => {
    new FakeWorker(1).pulse()
    isStopping = true
    expect(readiness()).toBe('this node is stopping')
    expect(crew.liveness()).toEqual({ isWell: true })
  })
})

describe('alive', () => {
  test('while the start takes its time', () => {
    new FakeWorker(1)
    pass(1_000)
    expect(crew.liveness()).toEqual({ isWell: true })
  })

  test('not when workers die as often as they are started', () => {
    let id = 1
    let worker = new FakeWorker(id)
    worker.pulse()
    pass(1)
    pass(119, () => {
      worker.exit(1)
      worker = new FakeWorker(++id)
    })
    expect(crew.liveness()).toEqual({ isWell: true })
    pass(1)
    pass(1)
    expect(crew.liveness()).toEqual({ isWell: false, reason: 'no worker has served for 120 s' })
    worker.pulse()
    pass(1)
    expect(crew.liveness()).toEqual({ isWell: true })
  })

  test('not when all hang, and whether the database is there does not matter', () => {
    const worker = new FakeWorker(1)
    pass(600, () => worker.pulse(false))
    expect(crew.liveness()).toEqual({ isWell: true })
    pass(123)
    expect(crew.liveness()).toEqual({ isWell: true })
    pass(2)
    expect(crew.liveness().isWell).toBe(false)
  })
})

describe('members', () => {
  test('have the lowest seat that is free, so that there are never more than at once', () => {
    const seats = () => crew.members().map(({ seat }) => seat)
    const [first] = [1, 2, 3].map((id) => new FakeWorker(id))
    expect(seats()).toEqual([1, 2, 3])
    if (first) first.isLinked = false
    first?.exit(0)
    for (let id = 4; id < 50; id++) {
      const worker = new FakeWorker(id)
      expect(seats().sort()).toEqual([1, 2, 3])
      worker.isLinked = false
      worker.exit(1)
    }
  })

  test('are gone when all they sent has come', () => {
    const worker = new FakeWorker(1)
    worker.pulse()
    worker.exit(0)
    expect(readiness()).toBe('no worker accepts connections')
    worker.tell({ kind: 'report', number: 7, metrics: [] })
    expect([reported, gone.length]).toEqual([[7], 0])
    worker.emit('disconnect')
    expect(gone).toHaveLength(1)
    expect(crew.members()).toEqual([])
  })

  test('of others, and messages of others, are nobody’s', () => {
    cluster.emit('message', { id: 99 } as Worker, { kind: 'pulse', isServing: true })
    cluster.emit('exit', { id: 99 } as Worker, 0, '')
    const worker = new FakeWorker(1)
    worker.tell({ kind: 'serving', addresses: { pop3: [], pop3s: [], lmtp: [] } })
    worker.tell({ type: 'prom-client:getMetricsReq' })
    expect(readiness()).toBe('no worker accepts connections')
  })
})

/** The queue in front of password hashing: bounds, turns, and who is turned away. */
import { describe, expect, it } from 'vitest'
import { isFailure } from '../../../src/base/failure.ts'
import { type Asker, HashQueue } from '../../../src/mail/auth/hash-queue.ts'

/** Work that ends when it is told to; `started` is the order in which the queue let it begin. */
class Bench {
  readonly started: string[] = []
  readonly refused: string[] = []
  readonly #finish = new Map<string, () => void>()
  readonly #queue: HashQueue

  constructor(options: Partial<{ concurrency: number; waitingMax: number; deadlineMs: number }>) {
    this.#queue = new HashQueue({ concurrency: 1, waitingMax: 10, deadlineMs: 60_000, ...options })
  }

  get waitingCount(): number {
    return this.#queue.waitingCount
  }

  submit(asker: Partial<Asker>, name: string): Promise<string> {
    const work = (): Promise<string> => {
      this.started.push(name)
      return new Promise((resolve) => this.#finish.set(name, () => resolve(name)))
    }
    const whole = { source: 'one', domain: 'one.test', ...asker }
    return this.#queue.run(whole, work).catch((error: unknown) => {
      if (!isFailure(error, 'AUTH_OVERLOADED')) throw error
      this.refused.push(name)
      return 'refused'
    })
  }

  async finish(name: string): Promise<void> {
    this.#finish.get(name)?.()
    await new Promise((resolve) => setImmediate(resolve))
  }

  async finishAll(): Promise<void> {
    for (let index = 0; index < this.started.length; index++)
      await this.finish(this.started[index] ?? '')
  }
}

const bySource = (name: string): Partial<Asker> => ({ source: name.charAt(0) })
const byDomain = (name: string): Partial<Asker> => ({ domain: name.charAt(0) })

describe('hash queue', () => {
  it('runs no more at once than its concurrency', async () => {
    const bench = new Bench({ concurrency: 2 })
    const all = ['1', '2', '3', '4'].map((name) => bench.submit({}, name))
    expect(bench.started).toEqual(['1', '2'])
    await bench.finish('2')
    expect(bench.started).toEqual(['1', '2', '3'])
    await bench.finishAll()
    expect(await Promise.all(all)).toEqual(['1', '2', '3', '4'])
    expect(bench.waitingCount).toBe(0)
  })

  it.each([
    ['sources', bySource],
    ['domains', byDomain],
  ])('serves %s in turns', async (_, asker) => {
    const bench = new Bench({})
    const names = ['a0', 'a1', 'a2', 'a3', 'b1', 'c1', 'b2']
    const all = names.map((name) => bench.submit(asker(name), name))
    await bench.finishAll()
    await Promise.all(all)
    expect(bench.started).toEqual(['a0', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3'])
  })

  it.each([
    ['source', bySource],
    ['domain', byDomain],
  ])('turns away the oldest of the largest %s when it is full', async (_, asker) => {
    const bench = new Bench({ waitingMax: 3 })
    const all = ['a0', 'a1', 'a2', 'a3', 'b1', 'a4'].map((name) => bench.submit(asker(name), name))
    await bench.finishAll()
    await Promise.all(all)
    expect(bench.refused).toEqual(['a1', 'a2'])
    expect(bench.started).toEqual(['a0', 'a3', 'b1', 'a4'])
  })

  it('goes on after work that failed', async () => {
    const queue = new HashQueue({ concurrency: 1, waitingMax: 1, deadlineMs: 60_000 })
    const asker = { source: 'one', domain: 'one.test' }
    const failing = queue.run(asker, () => Promise.reject(new Error('broken')))
    const next = queue.run(asker, () => Promise.resolve('next'))
    await expect(failing).rejects.toThrow('broken')
    expect(await next).toBe('next')
  })
})

describe('a flood', () => {
  const FLOOD = Array.from({ length: 1_000 }, (_, index) => index)
  const OTHER = { source: 'other', domain: 'other.test' }

  /** Who asks during the flood, which goes on after that. */
  async function standFlood(flood: (index: number) => Partial<Asker>, other: Asker): Promise<void> {
    const bench = new Bench({ waitingMax: 512 })
    const before = FLOOD.map((index) => bench.submit(flood(index), `flood ${index}`))
    expect(bench.waitingCount).toBe(512)
    const others = ['1', '2', '3'].map((name) => bench.submit(other, `other ${name}`))
    const after = FLOOD.map((index) => bench.submit(flood(index + 1_000), `flood ${index + 1_000}`))
    await bench.finishAll()
    await Promise.all([...before, ...others, ...after])
    expect(bench.refused.filter((name) => name.startsWith('other'))).toEqual([])
    // At least every second turn is theirs, after what runs and a round that has begun.
    expect(bench.started.slice(0, 10).filter((name) => name.startsWith('other'))).toHaveLength(3)
  }

  it('of made-up domains from one source does not keep out another', async () => {
    await standFlood((index) => ({ source: 'flood', domain: `d${index}.test` }), OTHER)
  })

  it('of one source does not keep out another at the same domain', async () => {
    await standFlood(() => ({ source: 'flood', domain: 'other.test' }), OTHER)
  })

  it('of one source over all domains does not keep out another', async () => {
    const flood = (index: number): Asker => ({
      source: 'flood',
      domain: index % 2 === 0 ? 'other.test' : `d${index}.test`,
    })
    await standFlood(flood, OTHER)
  })

  it('of many sources at one domain does not keep out another domain', async () => {
    await standFlood((index) => ({ source: `s${index}`, domain: 'flood.test' }), OTHER)
  })

  it('of one source at one domain does not keep out its other domains', async () => {
    const other = { source: 'flood', domain: 'other.test' }
    await standFlood(() => ({ source: 'flood', domain: 'flood.test' }), other)
  })
})

describe('waiting', () => {
  it('ends at the deadline, and is forgotten', async () => {
    const bench = new Bench({ deadlineMs: 10 })
    const first = bench.submit({}, 'a0')
    expect(await bench.submit({}, 'a1')).toBe('refused')
    expect(bench.waitingCount).toBe(0)
    const last = bench.submit({}, 'a2')
    await bench.finish('a0')
    await bench.finish('a2')
    expect(await Promise.all([first, last])).toEqual(['a0', 'a2'])
  })

  it('ends when the peer leaves: its place is free at once, its work never runs', async () => {
    const bench = new Bench({ waitingMax: 2 })
    const leaver = new AbortController()
    const { signal } = leaver
    const all = [
      bench.submit({}, 'a0'),
      bench.submit({ signal }, 'a1'),
      bench.submit({ signal }, 'a2'),
    ]
    leaver.abort()
    expect(bench.waitingCount).toBe(0)
    all.push(bench.submit({}, 'a3'), bench.submit({}, 'a4'))
    await bench.finishAll()
    await Promise.all(all)
    expect(bench.refused).toEqual(['a1', 'a2'])
    expect(bench.started).toEqual(['a0', 'a3', 'a4'])
  })

  it('does not begin for a peer that has left before', async () => {
    const bench = new Bench({})
    expect(await bench.submit({ signal: AbortSignal.abort() }, 'a0')).toBe('refused')
    expect(bench.started).toEqual([])
  })

  it('is over when work runs: a peer that leaves then changes nothing', async () => {
    const bench = new Bench({ waitingMax: 2 })
    const leaver = new AbortController()
    const one = { source: 'a', domain: 'a.test' }
    const all = [
      bench.submit(one, 'a0'),
      bench.submit({ ...one, signal: leaver.signal }, 'a1'),
      bench.submit(one, 'a2'),
    ]
    await bench.finish('a0')
    leaver.abort()
    // Two of a wait now, and one of b: what left has been counted off once.
    all.push(bench.submit({ source: 'b', domain: 'b.test' }, 'b1'), bench.submit(one, 'a3'))
    expect(bench.started).toEqual(['a0', 'a1'])
    await bench.finishAll()
    expect(await Promise.all(all)).toEqual(['a0', 'a1', 'refused', 'b1', 'a3'])
  })
})

/** The queue in front of password hashing: bounds, turns by share, and who is turned away. */
import { describe, expect, it } from 'vitest'
import { isFailure } from '../../../src/base/failure.ts'
import { HashQueue } from '../../../src/mail/auth/hash-queue.ts'

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

  submit(share: string, name: string): Promise<string> {
    const work = (): Promise<string> => {
      this.started.push(name)
      return new Promise((resolve) => this.#finish.set(name, () => resolve(name)))
    }
    return this.#queue.run(share, work).catch((error: unknown) => {
      if (!isFailure(error, 'AUTH_OVERLOADED')) throw error
      this.refused.push(name)
      return 'refused'
    })
  }

  async finish(name: string): Promise<void> {
    this.#finish.get(name)?.()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

describe('hash queue', () => {
  it('runs no more at once than its concurrency', async () => {
    const bench = new Bench({ concurrency: 2 })
    const all = ['1', '2', '3', '4'].map((name) => bench.submit('a', name))
    expect(bench.started).toEqual(['1', '2'])
    await bench.finish('2')
    expect(bench.started).toEqual(['1', '2', '3'])
    for (const name of ['1', '3', '4']) await bench.finish(name)
    expect(await Promise.all(all)).toEqual(['1', '2', '3', '4'])
    expect(bench.waitingCount).toBe(0)
  })

  it('serves the shares in turns', async () => {
    const bench = new Bench({})
    const names = ['a0', 'a1', 'a2', 'a3', 'b1', 'c1', 'b2']
    const all = names.map((name) => bench.submit(name.charAt(0), name))
    for (let index = 0; index < names.length; index++)
      await bench.finish(bench.started[index] ?? '')
    await Promise.all(all)
    expect(bench.started).toEqual(['a0', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3'])
  })

  it('turns away the newest of the longest share when it is full', async () => {
    const bench = new Bench({ waitingMax: 3 })
    const all = ['a0', 'a1', 'a2', 'a3'].map((name) => bench.submit('a', name))
    all.push(bench.submit('a', 'a4'))
    all.push(bench.submit('b', 'b1'))
    all.push(bench.submit('b', 'b2'))
    while (bench.waitingCount > 0) await bench.finish(bench.started.at(-1) ?? '')
    await bench.finish(bench.started.at(-1) ?? '')
    await Promise.all(all)
    expect(bench.refused.sort()).toEqual(['a3', 'a4', 'b2'])
    expect(bench.started).toEqual(['a0', 'a1', 'b1', 'a2'])
  })

  it('lets nobody wait past the deadline, and forgets who did', async () => {
    const bench = new Bench({ deadlineMs: 10 })
    const first = bench.submit('a', 'a0')
    expect(await bench.submit('a', 'a1')).toBe('refused')
    expect(bench.waitingCount).toBe(0)
    const last = bench.submit('a', 'a2')
    await bench.finish('a0')
    await bench.finish('a2')
    expect(await Promise.all([first, last])).toEqual(['a0', 'a2'])
  })

  it('goes on after work that failed', async () => {
    const queue = new HashQueue({ concurrency: 1, waitingMax: 1, deadlineMs: 60_000 })
    const failing = queue.run('a', () => Promise.reject(new Error('broken')))
    const next = queue.run('a', () => Promise.resolve('next'))
    await expect(failing).rejects.toThrow('broken')
    expect(await next).toBe('next')
  })
})

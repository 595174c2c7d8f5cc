/**
 * The bounded queue in front of password hashing. One argon2 verification takes 19 MiB and some 30
 * ms of a core, so logins are the cheapest way to exhaust a server: only so many run at once, only
 * so many wait, none waits longer than the deadline or than its peer. Whoever is turned away gets
 * AUTH_OVERLOADED, which is temporary, never "wrong password".
 *
 * Every second turn goes round by source, the others by domain (as it was asked for, known or
 * unknown alike, so that load tells nobody which domains exist). So a source that makes up domains
 * leaves the others half of all turns, and so does a domain that is flooded from many sources.
 */
import { Failure } from '../../base/failure.ts'
import { METRICS } from '../../base/metrics.ts'

export interface HashQueueOptions {
  /** How many run at the same time; may change. */
  readonly concurrency: number
  /** How many may wait in all. */
  waitingMax: number
  /** Under which it is counted; undefined: it is not. */
  name?: string
  /** How long one may wait for its turn, in milliseconds. */
  deadlineMs: number
}

/** For whom something is hashed. */
export interface Asker {
  /** Whoever holds it counts as one, see source.ts. */
  source: string
  domain: string
  /** Aborted when the peer has gone: what waits for it is not run any more. */
  signal?: AbortSignal | undefined
}

/** What those who wait have in common; forgotten when nobody of it waits. */
interface Share {
  key: string
  waitingCount: number
  /** The turn in which it was served last or began to wait: the lowest is the next. */
  turn: number
}

interface Waiting {
  source: Share
  domain: Share
  /** This domain as asked for by this source. */
  both: Share
  start(): void
  refuse(): void
}

export class HashQueue {
  readonly #options: HashQueueOptions
  /** In the order of arrival; so few that going through all of them costs nothing beside a hash. */
  readonly #waiting = new Set<Waiting>()
  readonly #shares = new Map<string, Share>()
  #runningCount = 0
  #turn = 0

  constructor(options: HashQueueOptions) {
    this.#options = options
  }

  get waitingCount(): number {
    return this.#waiting.size
  }

  /**
   * Runs `work` when it is its turn.
   * @throws {Failure} AUTH_OVERLOADED if there is no room, the deadline has passed or the peer left
   */
  async run<T>(asker: Asker, work: () => Promise<T>): Promise<T> {
    if (asker.signal?.aborted) throw new Failure('AUTH_OVERLOADED', 'the peer has left')
    const { name } = this.#options
    const askedAt = performance.now()
    if (this.#runningCount >= this.#options.concurrency) await this.#wait(asker)
    else this.#runningCount += 1
    const beganAt = performance.now()
    if (name) METRICS.hashWaitSeconds.of(name).observe((beganAt - askedAt) / 1_000)
    try {
      return await work()
    } finally {
      if (name) METRICS.hashSeconds.of(name).observe((performance.now() - beganAt) / 1_000)
      this.#runningCount -= 1
      this.#startNext()
    }
  }

  #wait({ source, domain, signal }: Asker): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (settle: () => void): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', refuse)
        this.#remove(waiting)
        settle()
      }
      const refuse = (): void => {
        if (this.#options.name) METRICS.hashRefused.of(this.#options.name).add()
        leave(() => reject(new Failure('AUTH_OVERLOADED')))
      }
      const timer = setTimeout(refuse, this.#options.deadlineMs)
      signal?.addEventListener('abort', refuse)
      // Neither an address nor a domain name holds a space.
      const waiting: Waiting = {
        source: this.#enter(`source ${source}`),
        domain: this.#enter(`domain ${domain}`),
        both: this.#enter(`both ${source} ${domain}`),
        start: () => leave(resolve),
        refuse,
      }
      this.#waiting.add(waiting)
      this.#countWaiting(1)
      if (this.#waiting.size > this.#options.waitingMax) this.#findHeaviest()?.refuse()
    })
  }

  #enter(key: string): Share {
    const share = this.#shares.get(key) ?? { key, waitingCount: 0, turn: this.#turn }
    this.#shares.set(key, share)
    share.waitingCount += 1
    return share
  }

  #remove(waiting: Waiting): void {
    this.#waiting.delete(waiting)
    this.#countWaiting(-1)
    for (const share of [waiting.source, waiting.domain, waiting.both]) {
      share.waitingCount -= 1
      if (share.waitingCount === 0) this.#shares.delete(share.key)
    }
  }

  #countWaiting(count: number): void {
    if (this.#options.name) METRICS.hashWaiting.of(this.#options.name).add(count)
  }

  /**
   * Who gives up its place when there is no room: of the largest share, be it a source or a domain,
   * who has waited longest, as that peer is the likeliest to have given up.
   */
  #findHeaviest(): Waiting | undefined {
    return first(this.#waiting, ({ source, domain }) => {
      const [a, b] = [source.waitingCount, domain.waitingCount]
      return [-Math.max(a, b), -Math.min(a, b)]
    })
  }

  #startNext(): void {
    if (this.#runningCount >= this.#options.concurrency) return
    this.#turn += 1
    const isBySource = this.#turn % 2 === 0
    const next = first(this.#waiting, ({ source, domain, both }) => [
      isBySource ? source.turn : domain.turn,
      both.turn,
    ])
    if (next === undefined) return
    for (const share of [next.source, next.domain, next.both]) share.turn = this.#turn
    this.#runningCount += 1
    next.start()
  }
}

/** The one with the lowest rank; of equals, who came first. */
function first(
  all: Iterable<Waiting>,
  rankOf: (waiting: Waiting) => [first: number, second: number],
): Waiting | undefined {
  let found: Waiting | undefined
  let lowest: [number, number] = [Number.POSITIVE_INFINITY, 0]
  for (const waiting of all) {
    const rank = rankOf(waiting)
    if (rank[0] > lowest[0] || (rank[0] === lowest[0] && rank[1] >= lowest[1])) continue
    found = waiting
    lowest = rank
  }
  return found
}

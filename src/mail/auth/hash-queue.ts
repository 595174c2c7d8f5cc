/**
 * The bounded queue in front of password hashing. One argon2 verification takes 19 MiB and some 30
 * ms of a core, so logins are the cheapest way to exhaust a server: only so many run at once, only
 * so many wait, none waits longer than the deadline. Whoever is turned away gets AUTH_OVERLOADED,
 * which is temporary, never "wrong password".
 *
 * Waiting logins are served in turns by share (the domain as it was asked for, known or unknown
 * alike, so that load tells nobody which domains exist): a flood at one domain does not starve the
 * others.
 */
import { Failure } from '../../base/failure.ts'

export interface HashQueueOptions {
  /** How many run at the same time. */
  concurrency: number
  /** How many may wait in all. */
  waitingMax: number
  /** How long one may wait for its turn, in milliseconds. */
  deadlineMs: number
}

interface Waiting {
  start(): void
  refuse(): void
}

export class HashQueue {
  readonly #options: HashQueueOptions
  /** First in, first out within a share; the first share is the next to be served. */
  readonly #shares = new Map<string, Waiting[]>()
  #runningCount = 0
  #waitingCount = 0

  constructor(options: HashQueueOptions) {
    this.#options = options
  }

  get waitingCount(): number {
    return this.#waitingCount
  }

  /**
   * Runs `work` when it is its turn.
   * @throws {Failure} AUTH_OVERLOADED if there is no room or the deadline has passed
   */
  async run<T>(share: string, work: () => Promise<T>): Promise<T> {
    if (this.#runningCount >= this.#options.concurrency) await this.#turn(share)
    else this.#runningCount += 1
    try {
      return await work()
    } finally {
      this.#runningCount -= 1
      this.#startNext()
    }
  }

  #turn(share: string): Promise<void> {
    if (this.#waitingCount >= this.#options.waitingMax) this.#makeRoom(share)
    return new Promise((resolve, reject) => {
      const refuse = (): void => {
        clearTimeout(timer)
        this.#remove(share, waiting)
        reject(new Failure('AUTH_OVERLOADED'))
      }
      const start = (): void => {
        clearTimeout(timer)
        resolve()
      }
      const timer = setTimeout(refuse, this.#options.deadlineMs)
      const waiting: Waiting = { start, refuse }
      const line = this.#shares.get(share)
      if (line === undefined) this.#shares.set(share, [waiting])
      else line.push(waiting)
      this.#waitingCount += 1
    })
  }

  /** The longest share gives up its newest place, unless the one that asks is just as long. */
  #makeRoom(share: string): void {
    let longest: Waiting[] = []
    for (const line of this.#shares.values()) if (line.length > longest.length) longest = line
    const own = this.#shares.get(share)?.length ?? 0
    if (own + 1 >= longest.length) throw new Failure('AUTH_OVERLOADED')
    longest.at(-1)?.refuse()
  }

  #remove(share: string, waiting: Waiting): void {
    const line = this.#shares.get(share) ?? []
    line.splice(line.indexOf(waiting), 1)
    if (line.length === 0) this.#shares.delete(share)
    this.#waitingCount -= 1
  }

  #startNext(): void {
    for (const [share, line] of this.#shares) {
      const waiting = line.shift()
      this.#waitingCount -= 1
      this.#runningCount += 1
      // To the end of the turn, or out of it: a share without anyone waiting is forgotten.
      this.#shares.delete(share)
      if (line.length > 0) this.#shares.set(share, line)
      waiting?.start()
      return
    }
  }
}

/**
 * A clock of a node that can be set wrong while it runs: Debian's libfaketime before its C library,
 * in the node and its workers alone. The monotonic clock stays right, as it does when an operator
 * sets a machine's clock.
 */
import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const LIBRARIES = '/usr/lib'
const NAME = 'faketime/libfaketimeMT.so.1'

/** undefined: it is not here; the package is `libfaketime`. */
export function findFakeTime(): string | undefined {
  const candidates = readdirSync(LIBRARIES).map((name) => join(LIBRARIES, name, NAME))
  return candidates.find((path) => existsSync(path))
}

export class NodeClock {
  readonly #file: string

  /** Right at first. @param file is made; the node may read it */
  constructor(file: string) {
    this.#file = file
    this.set(0)
  }

  /** Environment of the node whose clock it is. */
  get env(): Record<string, string> {
    const library = findFakeTime()
    if (library === undefined) throw new Error('libfaketime is not installed')
    return {
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: this.#file,
      // After so many seconds a change is seen.
      FAKETIME_CACHE_DURATION: '1',
      // Of one and the other version.
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      DONT_FAKE_MONOTONIC: '1',
    }
  }

  /** @param hours by which it is fast, or slow if negative, from now on */
  set(hours: number): void {
    writeFileSync(`${this.#file}.new`, `${hours < 0 ? '' : '+'}${hours}h\n`)
    renameSync(`${this.#file}.new`, this.#file)
  }
}

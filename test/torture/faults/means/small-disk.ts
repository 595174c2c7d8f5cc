/**
 * A disk that is full at a word: a tmpfs whose size is set to what it holds, so that nothing has to
 * be written to fill it. For root, where mounting is allowed.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmdirSync, statfsSync } from 'node:fs'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'

/** Octets. Only what is written to it takes memory: a torture wrote 1 GiB in six minutes. */
const SIZE = Math.floor(totalmem() / 2)
const ATTEMPTS = 20

export class SmallDisk {
  readonly directory: string

  /** @param directory is made, and gone after `remove` */
  constructor(directory: string) {
    this.directory = directory
    mkdirSync(directory)
    try {
      run('mount', ['-t', 'tmpfs', '-o', `size=${SIZE},mode=0755`, 'tmpfs', directory])
    } catch (error) {
      rmdirSync(directory)
      throw error
    }
  }

  /** No octet more. */
  fill(): void {
    for (let attempt = 1; ; attempt++) {
      const { blocks, bfree, bsize } = statfsSync(this.directory)
      try {
        this.#resize((blocks - bfree) * bsize)
        return
      } catch (error) {
        // Somebody wrote in between: it would not hold what it has.
        if (attempt === ATTEMPTS) throw error
      }
    }
  }

  empty(): void {
    this.#resize(SIZE)
  }

  /** What is open in it stays so, unseen. */
  remove(): void {
    run('umount', ['--lazy', this.directory])
    rmdirSync(this.directory)
  }

  #resize(octets: number): void {
    run('mount', ['-o', `remount,size=${octets}`, this.directory])
  }
}

/** Why there is no such disk here; undefined: there is. */
export function whyNoSmallDisk(): string | undefined {
  const directory = mkdtempSync(join(tmpdir(), 'popgres-mount-'))
  try {
    new SmallDisk(join(directory, 'tried')).remove()
    return undefined
  } catch (error) {
    return `a tmpfs cannot be mounted: ${(error as Error).message}`
  } finally {
    rmdirSync(directory)
  }
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error((error?.message ?? stderr).trim())
}

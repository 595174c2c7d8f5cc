/**
 * Mail directories of users whose mail a workload changes, put aside once and brought back after.
 * Indexes are among them: a server finds what it left when the mail was seeded.
 */
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { addressOf, DELETE, DELIVER, deleteUser, deliverUser } from '../load/content.ts'

/** Workloads that leave other mail than they found. */
const CHANGING = /^(retr-dele|quit|lmtp|mixed-day)/

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1)

export class MailCopy {
  readonly #mail: string
  readonly #copy: string

  /** @param mail holds a directory for each address; no session may be open */
  constructor(mail: string) {
    this.#mail = mail
    this.#copy = `${mail}-as-seeded`
    if (existsSync(this.#copy)) return
    mkdirSync(`${this.#copy}.new`, { recursive: true })
    this.#cp(this.#changing(mail), `${this.#copy}.new`)
    renameSync(`${this.#copy}.new`, this.#copy)
  }

  /** Mail as it was, if the workload has changed it. */
  restoreAfter(workload: string): void {
    if (!CHANGING.test(workload)) return
    for (const directory of this.#changing(this.#mail)) rmSync(directory, { recursive: true })
    this.#cp(this.#changing(this.#copy), this.#mail)
  }

  #changing(mail: string): string[] {
    return [...numbers(DELETE.users).map(deleteUser), ...numbers(DELIVER.users).map(deliverUser)]
      .map((user) => join(mail, addressOf(user)))
      .filter((directory) => existsSync(directory))
  }

  /** Node's own copy would not keep owners. */
  #cp(directories: readonly string[], into: string): void {
    if (directories.length > 0) execFileSync('cp', ['-a', '--', ...directories, into])
  }
}

/** Users other than ours have to reach their mail: temporary directories are closed to them. */
export function letOthersThrough(place: string): void {
  mkdirSync(place, { recursive: true })
  for (let path = place; path.startsWith(`${tmpdir()}/`); path = dirname(path))
    chmodSync(path, statSync(path).mode | 0o11)
}

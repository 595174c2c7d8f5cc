/**
 * Where mail lies, opened so that no link leads elsewhere. Whoever imports may read everything, and
 * the owner of a maildrop may put links into it: to somebody else's mail, or to /etc/shadow. So the
 * way down to a file is gone step by step, each name below the directory that is open already
 * (Linux: by /proc/self/fd), and a name that is a link is refused. Nothing else than a file is read
 * as one, and opening it waits for nobody (a FIFO). Only what leads to the part that users can
 * change is the operator's: links in there are followed.
 *
 * Names have one character an octet (latin1), as not all of them are UTF-8.
 */
import { constants, existsSync, type Stats } from 'node:fs'
import { type FileHandle, lstat, open, readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'

const OPEN_FILES = '/proc/self/fd'
const CAN_STEP = process.platform === 'linux' && existsSync(OPEN_FILES)
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants
/** Linux: a directory is passed through, which its owner may allow without letting it be read. */
const O_PATH = 0o10000000
const PASS = O_DIRECTORY | (CAN_STEP ? O_PATH : O_RDONLY)
const READ = O_RDONLY | O_NONBLOCK

export class MailPath {
  /** As an operator reads it. */
  readonly text: string
  /** The operator's part. */
  readonly #trusted: string
  readonly #names: readonly string[]

  private constructor(trusted: string, names: readonly string[], text: string) {
    this.#trusted = trusted
    this.#names = names
    this.text = text
  }

  /** @param trusted the part of `path` in which links are followed; all before its last name */
  static of(path: string, trusted: string = dirname(path)): MailPath {
    const rest = trusted === '.' ? path : path.slice(trusted.length)
    const names = Buffer.from(rest).toString('latin1').split('/')
    const text = path.replace(/(?<=.)\/+$/, '')
    return new MailPath(
      trusted,
      names.filter((name) => name !== '' && name !== '.'),
      text,
    )
  }

  /** What somebody has named on the command line: links are followed if that was said. */
  static given(paths: readonly string[], followsLinks = false): MailPath[] {
    return paths.map((path) => MailPath.of(path, followsLinks ? path : undefined))
  }

  /** @param name one name, one character an octet */
  below(name: string): MailPath {
    const text = join(this.text, Buffer.from(name, 'latin1').toString())
    return new MailPath(this.#trusted, [...this.#names, name], text)
  }

  /** Of what is there, be it a link. Tells nothing of what it holds, so it may be raced. */
  lstat(): Promise<Stats> {
    return lstat(this.#octetsOf(this.#names.length))
  }

  /** @throws errors of reading; ELOOP: what their `path` says is a link */
  async stat(): Promise<Stats> {
    const opened = await this.#open(READ)
    try {
      return await opened.stat()
    } finally {
      await opened.close()
    }
  }

  /** Names in this directory. */
  async list(): Promise<string[]> {
    const directory = await this.#open(READ | O_DIRECTORY)
    try {
      const path = CAN_STEP ? `${OPEN_FILES}/${directory.fd}` : this.#octetsOf(this.#names.length)
      return await readdir(path, 'latin1')
    } finally {
      await directory.close()
    }
  }

  /** @param range octets, the last one included */
  async *read(range: { start?: number; end?: number } = {}): AsyncGenerator<Buffer> {
    const file = await this.#open(READ)
    const stats = await file.stat()
    if (!stats.isFile()) {
      await file.close()
      throw readError(stats.isDirectory() ? 'EISDIR' : 'EFTYPE', this.text)
    }
    yield* file.createReadStream(range) as AsyncIterable<Buffer>
  }

  async #open(flags: number): Promise<FileHandle> {
    const count = this.#names.length
    let at = await open(this.#trusted, count === 0 ? flags : PASS)
    for (let nth = 0; nth < count; nth += 1) {
      const way = CAN_STEP ? Buffer.from(`${OPEN_FILES}/${at.fd}/`) : this.#octetsOf(nth, '/')
      const path = Buffer.concat([way, Buffer.from(this.#names[nth] ?? '', 'latin1')])
      try {
        const next = await open(path, O_NOFOLLOW | (nth === count - 1 ? flags : PASS))
        await at.close()
        at = next
      } catch (error) {
        const isLink = await lstat(path)
          .then((stats) => stats.isSymbolicLink())
          .catch(() => false)
        await at.close()
        const { code = '' } = error as NodeJS.ErrnoException
        throw readError(isLink ? 'ELOOP' : code, this.#octetsOf(nth + 1).toString())
      }
    }
    return at
  }

  /** @param count so many of the names */
  #octetsOf(count: number, end = ''): Buffer {
    const names = this.#names.slice(0, count).map((name) => Buffer.from(`/${name}`, 'latin1'))
    return Buffer.concat([
      Buffer.from(this.#trusted.replace(/\/$/, '')),
      ...names,
      Buffer.from(end),
    ])
  }
}

/** As errors of reading are: with a code, and what was called. */
function readError(code: string, path: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${path}`), { code, path, syscall: 'open' })
}

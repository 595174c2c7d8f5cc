/**
 * A secret in memory: whatever prints it (a log, an error, JSON, a template) prints `[secret]`.
 * Only `reveal()` gives the bytes, so a search for that word finds every use.
 */
import { inspect } from 'node:util'

export class Secret {
  readonly #bytes: Buffer

  /** @param value the secret's octets; text is taken as UTF-8 */
  constructor(value: Buffer | string) {
    this.#bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value
  }

  reveal(): Buffer {
    return this.#bytes
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}

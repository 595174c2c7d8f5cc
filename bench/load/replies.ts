/**
 * What a client expects next, and the comparison of what comes with it: each kind takes octets as
 * the socket brings them and throws at the first that is wrong.
 */
const LF = 0x0a
const CR = 0x0d
const DOT = 0x2e
const SPACE = 0x20
const LINE_MAX_OCTETS = 1_024
const OK = Buffer.from('+OK')
const TERMINATOR = Buffer.from('\r\n.\r\n')

/** A server said what it must not. */
export class WrongReply extends Error {
  override readonly name = 'WrongReply'
}

export interface Reply {
  isDone: boolean
  /** @returns up to where it took them; -1: none, more has to come first */
  take(octets: Buffer, at: number): number
  /** Called once it is done. */
  done(): void
}

/** Text of what came, for the message of an error. */
export function show(octets: Buffer, at: number): string {
  return JSON.stringify(octets.toString('latin1', at, at + 60))
}

/** @returns where the status line ends, at its LF; -1: not yet */
function endOfOk(octets: Buffer, at: number): number {
  // Lines are short: to search here costs less than a call of indexOf.
  let end = at
  while (end < octets.length && octets[end] !== LF) end += 1
  if (end === octets.length) {
    if (end - at > LINE_MAX_OCTETS) throw new WrongReply('an endless line')
    return -1
  }
  if (octets[end - 1] !== CR) throw new WrongReply(`no CRLF: ${show(octets, at)}`)
  const next = octets[at + OK.length]
  const isWord = next === SPACE || at + OK.length === end - 1
  if (!isAt(octets, at, OK) || !isWord) throw new WrongReply(`not +OK: ${show(octets, at)}`)
  return end
}

/** For a few octets. */
function isAt(octets: Buffer, at: number, expected: Buffer): boolean {
  for (let i = 0; i < expected.length; i++) if (octets[at + i] !== expected[i]) return false
  return true
}

/** The number after "+OK ", if one is there. */
function numberAfterOk(octets: Buffer, at: number): number | undefined {
  let value: number | undefined
  for (let i = at + OK.length + 1; i < octets.length; i++) {
    const digit = (octets[i] ?? 0) - 0x30
    if (digit < 0 || digit > 9) break
    value = (value ?? 0) * 10 + digit
  }
  return value
}

/** One line: +OK and, if `start` is given, exactly that after it. */
export class OkLine implements Reply {
  isDone = false
  readonly done: () => void
  readonly #start: Buffer | undefined

  constructor(done: () => void, start?: Buffer) {
    this.done = done
    this.#start = start
  }

  take(octets: Buffer, at: number): number {
    const end = endOfOk(octets, at)
    if (end < 0) return -1
    const start = this.#start
    if (start !== undefined) {
      const from = at + OK.length + 1
      const next = octets[from + start.length]
      if (!isAt(octets, from, start) || (next !== CR && next !== SPACE))
        throw new WrongReply(`not "+OK ${start}": ${show(octets, at)}`)
    }
    this.isDone = true
    return end + 1
  }
}

/** A listing of many lines. Never pipelined: its terminator is where the peer stops. */
export class Listing implements Reply {
  isDone = false
  readonly #done: (body: Buffer) => void
  #hasStatus = false
  #parts: Buffer[] = []
  /** The last octets that came. */
  #tail: Buffer = Buffer.from('\r\n')

  constructor(done: (body: Buffer) => void) {
    this.#done = done
  }

  take(octets: Buffer, at: number): number {
    let from = at
    if (!this.#hasStatus) {
      const end = endOfOk(octets, at)
      if (end < 0) return -1
      this.#hasStatus = true
      from = end + 1
    }
    if (from === octets.length) return from
    const part = Buffer.from(octets.subarray(from))
    this.#parts.push(part)
    const tail = part.length >= TERMINATOR.length ? part : Buffer.concat([this.#tail, part])
    this.#tail = tail.subarray(-TERMINATOR.length)
    this.isDone = this.#tail.equals(TERMINATOR)
    return octets.length
  }

  /** Gives the lines with the terminating one. */
  done(): void {
    this.#done(Buffer.concat(this.#parts))
  }
}

/** A message or a listing that is known to the octet. */
export class KnownContent implements Reply {
  isDone = false
  readonly done: () => void
  readonly #wire: Buffer
  readonly #otherwise: string
  /** What the status line of a message has to say. */
  readonly #octets: number | undefined
  /** How much of it has come; -1: not even the status line. */
  #taken = -1

  /** @param otherwise what is said of a server that sends anything else */
  constructor(wire: Buffer, otherwise: string, done: () => void, octets?: number) {
    this.done = done
    this.#wire = wire
    this.#otherwise = otherwise
    this.#octets = octets
  }

  take(octets: Buffer, at: number): number {
    let from = at
    if (this.#taken < 0) {
      const end = endOfOk(octets, at)
      if (end < 0) return -1
      if (this.#octets !== undefined) checkOctets(numberAfterOk(octets, at), this.#octets)
      this.#taken = 0
      from = end + 1
    }
    const wire = this.#wire
    const length = Math.min(octets.length - from, wire.length - this.#taken)
    const isSame =
      octets.compare(wire, this.#taken, this.#taken + length, from, from + length) === 0
    if (!isSame) throw new WrongReply(`${this.#otherwise}, near ${show(octets, from)}`)
    this.#taken += length
    this.isDone = this.#taken === wire.length
    return from + length
  }
}

/** RETR of a message before which the server has put header lines when it was delivered. */
export class DeliveredMessage implements Reply {
  isDone = false
  readonly #done: (octets: number) => void
  readonly #octets: number
  readonly #wire: Buffer
  #said: number | undefined
  #hasStatus = false
  #came: Buffer = Buffer.alloc(0)

  /** @param done is told the octets, header lines included */
  constructor(octets: number, wire: Buffer, done: (octets: number) => void) {
    this.#done = done
    this.#octets = octets
    this.#wire = wire
  }

  take(octets: Buffer, at: number): number {
    let from = at
    if (!this.#hasStatus) {
      const end = endOfOk(octets, at)
      if (end < 0) return -1
      this.#said = numberAfterOk(octets, at)
      this.#hasStatus = true
      from = end + 1
    }
    const before = this.#came.length
    const came = Buffer.concat([this.#came, octets.subarray(from)])
    const end = came.indexOf(TERMINATOR, Math.max(0, before - TERMINATOR.length))
    this.#came = end < 0 ? came : came.subarray(0, end + TERMINATOR.length)
    this.isDone = end >= 0
    return end < 0 ? octets.length : from + this.#came.length - before
  }

  done(): void {
    const ownLines = this.#came.length - this.#wire.length
    const isWhole = ownLines >= 0 && this.#came.subarray(ownLines).equals(this.#wire)
    const isSeam = ownLines === 0 || this.#came[ownLines - 1] === LF
    if (!isWhole || !isSeam) throw new WrongReply('other content than was delivered')
    if (this.#came[0] === DOT) throw new WrongReply('a header line begins with a dot')
    checkOctets(this.#said, ownLines + this.#octets)
    this.#done(ownLines + this.#octets)
  }
}

/** RFC 1939 §5 does not demand them; whoever says them says them right. */
function checkOctets(said: number | undefined, octets: number): void {
  if (said !== undefined && said !== octets)
    throw new WrongReply(`it said ${said} octets of a message of ${octets}`)
}

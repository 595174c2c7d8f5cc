/**
 * As much of PostgreSQL's protocol as it takes to see, from between a node and its server, which
 * statement is sent and which one is answered. A unit is what ends with a Sync: one statement and
 * one transaction for a node. It is committed, or not, when ReadyForQuery answers it: the
 * CommandComplete before it is written ahead of the commit.
 */

/** PostgreSQL, Message Formats: a length counts itself, but not the octet of kind before it. */
const LENGTH_OCTETS = 4
const SSL_REQUEST = 80_877_103
const GSS_REQUEST = 80_877_104

/** Whole messages out of a stream that is cut anywhere. */
class MessageCutter {
  #rest: Buffer = Buffer.alloc(0)

  /** @param isFirst a startup message has no octet of kind */
  cut(piece: Buffer, isFirst = false): Buffer[] {
    this.#rest = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece])
    const lengthAt = isFirst ? 0 : 1
    const messages: Buffer[] = []
    while (this.#rest.length >= lengthAt + LENGTH_OCTETS) {
      const octets = lengthAt + this.#rest.readUInt32BE(lengthAt)
      if (this.#rest.length < octets) break
      messages.push(this.#rest.subarray(0, octets))
      this.#rest = this.#rest.subarray(octets)
      // What follows the startup message waits for the server, and comes in another piece.
      if (isFirst) break
    }
    return messages
  }
}

/** What is sent up to one Sync. */
export interface Unit {
  /** names of the prepared statements that it executes */
  readonly statements: Set<string>
  /** the server refused it, so it was rolled back */
  isRefused: boolean
}

/** Both directions of one connection. */
export class Conversation {
  readonly #requests = new MessageCutter()
  readonly #answers = new MessageCutter()
  readonly #unanswered: Unit[] = []
  #unit: Unit | undefined
  #isStarted = false
  #isLoggedIn = false

  /** @returns the units that end in this piece */
  request(piece: Buffer): Unit[] {
    const sent: Unit[] = []
    for (const octets of this.#requests.cut(piece, !this.#isStarted)) {
      if (this.#isStarted) this.#add(octets, sent)
      else this.#start(octets)
    }
    return sent
  }

  /** @returns the units that are answered in this piece, carried out or refused */
  answer(piece: Buffer): Unit[] {
    const answered: Unit[] = []
    for (const octets of this.#answers.cut(piece)) {
      const kind = kindOf(octets)
      const unit = this.#isLoggedIn ? this.#unanswered[0] : undefined
      if (kind === 'E' && unit !== undefined) unit.isRefused = true
      if (kind !== 'Z') continue
      this.#isLoggedIn = true
      if (unit === undefined) continue
      this.#unanswered.shift()
      answered.push(unit)
    }
    return answered
  }

  #start(octets: Buffer): void {
    const code = octets.readUInt32BE(LENGTH_OCTETS)
    if (code === SSL_REQUEST || code === GSS_REQUEST)
      throw new Error('what is encrypted cannot be looked into: no sslmode in the URL')
    this.#isStarted = true
  }

  #add(octets: Buffer, sent: Unit[]): void {
    const kind = kindOf(octets)
    if (kind === 'p' || kind === 'X') return // a password, the goodbye
    this.#unit ??= { statements: new Set(), isRefused: false }
    const unit = this.#unit
    if (kind === 'B') unit.statements.add(statementOfBind(octets))
    if (kind !== 'S' && kind !== 'Q') return
    sent.push(unit)
    this.#unanswered.push(unit)
    this.#unit = undefined
  }
}

const kindOf = (octets: Buffer): string => String.fromCharCode(octets[0] ?? 0)

/** Bind: the name of the portal, then that of the statement, each ended by NUL. */
function statementOfBind(octets: Buffer): string {
  const from = octets.indexOf(0, 1 + LENGTH_OCTETS) + 1
  return octets.toString('latin1', from, octets.indexOf(0, from))
}

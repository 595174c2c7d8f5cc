/**
 * Loses the connection of a statement at an exact moment. `before`: the server never sees it.
 * `after`: the server has committed it and says so, and the node never hears of it. `late`: the
 * node loses its connection first, and the statement arrives when the node has long asked what
 * became of it. What is under way on the same connection shares its fate.
 */
import type { DatabaseProxy, ProxiedConnection } from '../../database-proxy.ts'
import { Conversation, type Unit } from './wire.ts'

export type LossMoment = 'before' | 'after' | 'late'

interface Loss {
  /** name of the prepared statement */
  statement: string
  moment: LossMoment
  /** Called in the same turn: nothing else can happen before. */
  happened(connection: ProxiedConnection): void
}

const NOTHING = Buffer.alloc(0)

export class StatementLoss {
  readonly #losses = new Set<Loss>()
  readonly #conversations = new Map<ProxiedConnection, Conversation>()
  readonly #late: (() => void)[] = []

  /** Connections that are open already cannot be looked into: they are cut, and come anew. */
  constructor(proxy: DatabaseProxy) {
    proxy.cut()
    const conversationOf = (connection: ProxiedConnection): Conversation => {
      const known = this.#conversations.get(connection)
      if (known !== undefined) return known
      const conversation = new Conversation()
      this.#conversations.set(connection, conversation)
      connection.target.once('close', () => this.#conversations.delete(connection))
      return conversation
    }
    proxy.onRequest = (piece, connection) => {
      const units = conversationOf(connection).request(piece)
      const loss = this.#lossOf(units, (moment) => moment !== 'after')
      if (loss === undefined) return undefined
      if (loss.moment === 'late') this.#keep(piece, connection)
      else connection.cut()
      loss.happened(connection)
      return NOTHING
    }
    proxy.onAnswer = (piece, connection) => {
      const units = conversationOf(connection).answer(piece)
      const carriedOut = units.filter(({ isRefused }) => !isRefused)
      const loss = this.#lossOf(carriedOut, (moment) => moment === 'after')
      if (loss === undefined) return undefined
      connection.cut()
      loss.happened(connection)
      return NOTHING
    }
  }

  /**
   * The next execution of that statement is lost.
   * @param also what happens in the same instant
   * @returns resolves when it has happened
   */
  next(statement: string, moment: LossMoment, also: () => void = () => {}): Promise<void> {
    return new Promise((resolve) => {
      const happened = (): void => {
        this.#losses.delete(loss)
        also()
        resolve()
      }
      const loss: Loss = { statement, moment, happened }
      this.#losses.add(loss)
    })
  }

  /** What was lost `late` gets to the server now. */
  arrive(): void {
    for (const arrive of this.#late.splice(0)) arrive()
  }

  #keep(piece: Buffer, { target, cutClient }: ProxiedConnection): void {
    this.#late.push(() => target.end(piece))
    cutClient()
  }

  #lossOf(units: readonly Unit[], isNow: (moment: LossMoment) => boolean): Loss | undefined {
    const isMeant = ({ statement, moment }: Loss): boolean =>
      isNow(moment) && units.some(({ statements }) => statements.has(statement))
    return [...this.#losses].find(isMeant)
  }
}

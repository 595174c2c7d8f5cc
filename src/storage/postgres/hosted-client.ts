/**
 * A pg Client that connects to the host whose turn it is (see hosts.ts), and hangs up where pg
 * would leave its socket open. What its rows look like is its heirs' business.
 */
import { Client, type ClientConfig, type Connection } from 'pg'
import { type Hosts, type HostTry, WHY_NOT_WRITABLE } from './hosts.ts'

/** Its connection string is the host's. */
export interface HostedConfig extends ClientConfig {
  hosts: Hosts
}

export abstract class HostedClient extends Client {
  declare readonly connection: Connection
  readonly #hostTry: HostTry

  constructor(config: HostedConfig) {
    const hostTry = config.hosts.nextTry()
    super({ ...config, ...hostTry.config })
    this.#hostTry = hostTry
  }

  /** Called by pg-pool with a callback. */
  override connect(): Promise<this>
  override connect(callback: (error?: Error) => void): void
  override connect(callback?: (error?: Error) => void): Promise<this> | undefined {
    hangUpOnError(this.connection)
    const connecting = this.#hostTry
      .connect(this, () => super.connect())
      .then(() => {
        this.adjust()
        return this
      })
    if (callback === undefined) return connecting
    connecting.then(() => callback(undefined), callback)
    return undefined
  }

  /** Says what is to be said before the first statement. */
  protected adjust(): void {}

  abstract askWhyNotWritable(): Promise<string | null>
}

/**
 * pg leaves the socket open where it has no password to answer with: PostgreSQL would wait for a
 * minute, our process with it, and whoever creates a database.
 */
function hangUpOnError(connection: Connection): void {
  connection.on('error', () => connection.stream.destroy())
}

/** An ordinary pg Client. */
export class TextClient extends HostedClient {
  async askWhyNotWritable(): Promise<string | null> {
    const { rows } = await this.query<{ why: string | null }>(`${WHY_NOT_WRITABLE} as why`)
    return rows[0]?.why ?? null
  }
}

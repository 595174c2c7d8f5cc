/** A domain that migrates from an old server of a test's own, and nodes that serve it. */
import { upsertOldServer } from '../../../src/storage/tenants/old-servers.ts'
import { type OldServerOptions, OldServerStub, type OldUser } from '../../support/old-server.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addDomain, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

export const PASSWORD = 'Old-Horse-77'

export const message = (subject: string, date = 'Tue, 02 Jan 2024 03:04:05 +0000'): string =>
  `Received: from a by b; ${date}\r\nSubject: ${subject}\r\n\r\nText of ${subject}\r\n.dot\r\n`

export const withMail = (count: number): OldUser => ({
  password: PASSWORD,
  messages: Array.from({ length: count }, (_, at) => ({
    uniqueId: `0000000${at}abc`,
    text: message(`old ${at}`),
  })),
})

export interface Setting {
  domain: string
  domainId: number
  node: TestNode
}

interface Changes {
  makesUsers?: boolean
  userFormat?: 'full' | 'local'
  connectionsMax?: number
}

/** What one test needs is over when it has ended. */
export class MovingWorld {
  readonly database: TestDatabase
  #nodes: TestNode[] = []
  #servers: { stop(): Promise<void> }[] = []
  #domainCount = 0

  private constructor(database: TestDatabase) {
    this.database = database
  }

  static async open(): Promise<MovingWorld> {
    return new MovingWorld(await openTestDatabase())
  }

  async clear(): Promise<void> {
    for (const node of this.#nodes) await node.stop()
    for (const server of this.#servers) await server.stop()
    this.#nodes = []
    this.#servers = []
  }

  async migrate(
    old: Partial<OldServerOptions> & { count?: number },
    node: Partial<TestNodeOptions> = {},
    changes: Changes = {},
  ): Promise<Setting & { old: OldServerStub }> {
    const users = old.users ?? { [`alice@${this.#nextDomain()}`]: withMail(old.count ?? 3) }
    const stub = await OldServerStub.start({ ...old, users })
    return { old: stub, ...(await this.migrateFrom(stub, node, changes)) }
  }

  /** @param server is stopped when the test has ended */
  async migrateFrom(
    server: { port: number; stop(): Promise<void> },
    node: Partial<TestNodeOptions> = {},
    changes: Changes = {},
  ): Promise<Setting> {
    this.#servers.push(server)
    const domain = this.#nextDomain()
    this.#domainCount += 1
    const { db } = this.database
    const domainId = await addDomain(db, domain)
    await upsertOldServer(db, domainId, {
      host: '127.0.0.1',
      port: server.port,
      security: 'none',
      authority: undefined,
      userFormat: 'full',
      makesUsers: true,
      connectionsMax: 20,
      ...changes,
    })
    return { domain, domainId, node: await this.startNode(node) }
  }

  async startNode(options: Partial<TestNodeOptions> = {}): Promise<TestNode> {
    const node = await startTestNode({ url: this.database.url, ...options })
    this.#nodes.push(node)
    return node
  }

  async stopNodes(graceMs?: number): Promise<void> {
    for (const node of this.#nodes) await node.stop(graceMs)
    this.#nodes = []
  }

  async passwordHashOf(domainId: number, localPart: string): Promise<string | null | undefined> {
    const row = await this.database.db.kysely
      .selectFrom('users')
      .select('password_hash')
      .where('domain_id', '=', domainId)
      .where('local_part', '=', localPart)
      .executeTakeFirst()
    return row?.password_hash
  }

  #nextDomain(): string {
    return `moving${this.#domainCount + 1}.test`
  }
}

/** UIDL, line by line. */
export async function listing(client: Pop3Client): Promise<string[]> {
  const { raw } = await client.askMulti('UIDL')
  return raw
    .toString('latin1')
    .split('\r\n')
    .filter((line) => line !== '')
}

/** @returns what was said of the password */
export async function tryLogin(node: TestNode, user: string, password: string): Promise<string> {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${user}`)
  const reply = await client.ask(`PASS ${password}`)
  client.socket.destroy()
  return reply
}

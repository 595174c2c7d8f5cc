/**
 * What stands around an MTA in a test: the real server behind a proxy that can cut deliveries, a role
 * that may ask for addresses and nothing else, users, and a sender.
 */
import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { LineClient } from '../../support/line-client.ts'
import { directUrl } from '../../support/postgres.ts'
import { onServer } from '../../support/postgres-setup.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { DOMAIN, freePort, HOST, type InteropServer, startServer } from '../server.ts'

const SENDER = 'sender@elsewhere.test'
const WAIT = { timeout: 30_000, interval: 50 }

/** What one message was answered: to each RCPT, and to its octets if it came so far. */
export interface Answers {
  recipients: string[]
  message: string | undefined
}

export class Lab {
  readonly server: InteropServer
  /** Where the MTA is to listen. */
  readonly smtpPort: number
  /** Where the MTA is to ask for addresses. */
  readonly database: { port: number; name: string; user: string; password: string }
  /** How often a delivery was cut at DATA. */
  cuts = 0
  readonly #url: string
  readonly #lmtp: TcpProxy
  readonly #postgres: TcpProxy

  private constructor(
    server: InteropServer,
    smtpPort: number,
    database: Lab['database'],
    [lmtp, postgres]: [TcpProxy, TcpProxy],
  ) {
    this.server = server
    this.smtpPort = smtpPort
    this.database = database
    this.#url = directUrl(server.database.url)
    this.#lmtp = lmtp
    this.#postgres = postgres
  }

  static async open(): Promise<Lab> {
    const server = await startServer({ hasApop: false })
    const url = directUrl(server.database.url)
    const suffix = randomBytes(8).toString('hex')
    const [user, password] = [`mta_${suffix}`, `pw_${suffix}`]
    await onServer(url, `create role ${user} login password '${password}'`)
    await onServer(url, `select grant_lookups('${user}')`)
    const { rows } = await sql<{ port: string }>`show port`.execute(server.database.db.kysely)
    const name = new URL(url).pathname.slice(1)
    const postgres = await TcpProxy.open(Number(rows[0]?.port))
    const database = { port: postgres.port, name, user, password }
    const lmtp = await TcpProxy.open(server.lmtpPort)
    return new Lab(server, await freePort(), database, [lmtp, postgres])
  }

  /** Where the MTA is to deliver. */
  get lmtpPort(): number {
    return this.#lmtp.port
  }

  /** From now on each connection ends when a message would follow. RCPT goes through. */
  cutAtData(): void {
    this.#lmtp.onRequest = (chunk, cut) => {
      if (!/^DATA\r\n/im.test(chunk.toString('latin1'))) return
      this.cuts++
      cut()
    }
  }

  /** For the MTA alone. */
  takeAway(what: 'popgres' | 'postgres'): void {
    if (what === 'popgres') this.#lmtp.cut(true)
    else this.#postgres.cut(true)
  }

  heal(): void {
    this.#lmtp.heal()
    this.#postgres.heal()
  }

  async setQuota(address: string, octets: number | null): Promise<void> {
    await sql`update users u set quota_octets = ${octets} from find_user(${address}) f
      where u.domain_id = f.domain_id and u.user_id = f.user_id`.execute(
      this.server.database.db.kysely,
    )
  }

  async connect(): Promise<LineClient> {
    const client = await LineClient.connect(`${HOST}:${this.smtpPort}`)
    await client.reply()
    await client.ask('EHLO sender.elsewhere.test')
    return client
  }

  /** One message in a connection of its own. */
  async submit(addresses: readonly string[], octets: Buffer): Promise<Answers> {
    const client = await this.connect()
    const answers = await submitOn(client, addresses, octets)
    await client.ask('QUIT')
    client.destroy()
    return answers
  }

  /** How often each message lies in the maildrop, by its Subject. */
  async subjects(address: string): Promise<Map<string, number>> {
    const { rows } = await sql<{ subject: string; copies: number }>`
      select substring(convert_from(c.data, 'LATIN1') from 'Subject: (\\S+)') as subject,
        count(*)::integer as copies
      from find_user(${address}) f
        join messages m on m.domain_id = f.domain_id and m.user_id = f.user_id
        join body_chunks c on c.domain_id = m.domain_id and c.body_id = m.body_id and c.seq = 0
      group by 1`.execute(this.server.database.db.kysely)
    return new Map(rows.map(({ subject, copies }) => [subject, copies]))
  }

  /** How many deliveries the server has logged for this user. */
  deliveries(address: string): number {
    const user = `"user":"${address}"`
    const lines = this.server.output().split('\n')
    return lines.filter((line) => line.includes('"message delivered"') && line.includes(user))
      .length
  }

  async close(): Promise<void> {
    await this.#lmtp.close()
    await this.#postgres.close()
    await this.server.stop()
    const maintenance = new URL(this.#url)
    maintenance.pathname = '/postgres'
    await onServer(maintenance.toString(), `drop role ${this.database.user}`)
  }
}

/** @throws if the connection ends before the answers */
export async function submitOn(
  client: LineClient,
  addresses: readonly string[],
  octets: Buffer,
): Promise<Answers> {
  await client.ask(`MAIL FROM:<${SENDER}>`)
  const recipients: string[] = []
  for (const address of addresses) recipients.push(await client.ask(`RCPT TO:<${address}>`))
  if (!recipients.some((reply) => reply.startsWith('250'))) {
    await client.ask('RSET')
    return { recipients, message: undefined }
  }
  await client.ask('DATA')
  client.send(octets.toString('latin1').replace(/^\./gm, '..'))
  return { recipients, message: await client.ask('.') }
}

export { DOMAIN, SENDER, WAIT }

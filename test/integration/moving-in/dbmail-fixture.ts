/** The tables of a DBMail that an import reads, and messages taken apart as DBMail keeps them. */
import pg from 'pg'

const TABLES = `
  create table dbmail_users (user_idnr bigserial primary key, userid text not null,
    passwd text not null, client_idnr bigint not null default 0,
    maxmail_size bigint not null default 0, curmail_size bigint not null default 0,
    encryption_type text not null default '');
  create table dbmail_aliases (alias_idnr bigserial primary key, alias text not null,
    deliver_to text not null, client_idnr bigint not null default 0);
  create table dbmail_mailboxes (mailbox_idnr bigserial primary key,
    owner_idnr bigint not null references dbmail_users, name text not null);
  create table dbmail_physmessage (id bigserial primary key, messagesize bigint not null default 0,
    rfcsize bigint not null default 0, internal_date timestamp);
  create table dbmail_messages (message_idnr bigserial primary key,
    mailbox_idnr bigint references dbmail_mailboxes,
    physmessage_id bigint references dbmail_physmessage, seen_flag smallint not null default 0,
    deleted_flag smallint not null default 0, recent_flag smallint not null default 0,
    unique_id text not null, status smallint not null default 0);
  create table dbmail_mimeparts (id bigserial primary key, hash text not null, data bytea not null,
    size bigint not null);
  create table dbmail_partlists (physmessage_id bigint not null references dbmail_physmessage,
    is_header smallint not null, part_key smallint not null, part_depth smallint not null,
    part_order smallint not null, part_id bigint not null references dbmail_mimeparts)`

const BLOCKS = `create table dbmail_messageblks (messageblk_idnr bigserial primary key,
  physmessage_id bigint references dbmail_physmessage, messageblk bytea not null,
  blocksize bigint not null, is_header smallint not null default 0)`

export interface Part {
  depth: number
  isHeader: boolean
  data: string
}

export interface FixtureMessage {
  uniqueId: string
  /** Or what version 2 wrote. */
  parts: readonly Part[] | readonly string[]
  date?: string
  status?: number
}

export class DbmailFixture {
  readonly #client: pg.Client

  private constructor(client: pg.Client) {
    this.#client = client
  }

  static async open(url: string, hasBlocks: boolean): Promise<DbmailFixture> {
    const client = new pg.Client(url)
    await client.connect()
    await client.query(TABLES)
    if (hasBlocks) await client.query(BLOCKS)
    return new DbmailFixture(client)
  }

  async addUser(name: string, password: string, encryption: string, alias?: string, quota = 0) {
    const { rows } = await this.#client.query(
      `insert into dbmail_users (userid, passwd, encryption_type, maxmail_size)
       values ($1, $2, $3, $4) returning user_idnr`,
      [name, password, encryption, quota],
    )
    const [{ user_idnr: userId }] = rows
    if (alias !== undefined)
      await this.#client.query('insert into dbmail_aliases (alias, deliver_to) values ($1, $2)', [
        alias,
        userId,
      ])
    return String(userId)
  }

  async addMessages(userId: string, mailbox: string, messages: readonly FixtureMessage[]) {
    const { rows } = await this.#client.query(
      'insert into dbmail_mailboxes (owner_idnr, name) values ($1, $2) returning mailbox_idnr',
      [userId, mailbox],
    )
    for (const message of messages) await this.#addMessage(rows[0].mailbox_idnr, message)
  }

  async #addMessage(mailboxId: string, { uniqueId, parts, date, status = 0 }: FixtureMessage) {
    const { rows } = await this.#client.query(
      'insert into dbmail_physmessage (internal_date, rfcsize) values ($1, 100) returning id',
      [date ?? '2019-08-07 06:05:04'],
    )
    const [{ id }] = rows
    let key = 0
    let order = 0
    for (const part of parts) {
      if (typeof part === 'string') {
        await this.#client.query(
          `insert into dbmail_messageblks (physmessage_id, messageblk, blocksize)
           values ($1, $2, $3)`,
          [id, Buffer.from(part), part.length],
        )
        continue
      }
      if (part.isHeader) {
        key += 1
        order = 0
      }
      const data = Buffer.from(part.data)
      const inserted = await this.#client.query(
        'insert into dbmail_mimeparts (hash, data, size) values ($1, $2, $3) returning id',
        ['x', data, data.length],
      )
      await this.#client.query('insert into dbmail_partlists values ($1, $2, $3, $4, $5, $6)', [
        ...[id, part.isHeader ? 1 : 0, key, part.depth, order++, inserted.rows[0].id],
      ])
    }
    await this.#client.query(
      `insert into dbmail_messages (mailbox_idnr, physmessage_id, unique_id, status)
       values ($1, $2, $3, $4)`,
      [mailboxId, id, uniqueId, status],
    )
  }

  close(): Promise<void> {
    return this.#client.end()
  }
}

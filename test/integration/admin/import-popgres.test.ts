/** `popgres import popgres` undoes an export of each format; what is whole counts, and only that. */
import { createHash, randomUUID } from 'node:crypto'
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { deliver } from '../../../src/storage/deliveries.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { corpusFiles } from '../../support/corpus.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

const DOMAIN = 'example.test'
const OTHER = 'other.test'
const ALICE = `alice@${DOMAIN}`
const BOB = `bob@${DOMAIN}`
const DORA = `dora@${DOMAIN}`
const EVE = `eve@${DOMAIN}`
const ODD = `A/b.'{|}~!@${DOMAIN}`
const NOBODY = `nobody.yet@${DOMAIN}`
const PASSWORD = 'one long password'
const FORMATS = ['maildir', 'mbox', 'eml'] as const

interface Place {
  database: TestDatabase
  program: Program
}

async function openPlace(): Promise<Place> {
  const database = await openTestDatabase()
  return { database, program: openProgram({ DATABASE_URL: database.url }) }
}

async function closePlace(place: Place | undefined): Promise<void> {
  place?.program.close()
  await place?.database.close()
}

let here: Place
let appPassword = ''

beforeAll(async () => {
  here = await openPlace()
  const { db } = here.database
  const run = async (...args: string[]): Promise<string> => {
    const { status, stdout, stderr } = await here.program.run(args)
    expect(status, stderr).toBe(0)
    return stdout
  }
  const alice = await addUser(db, ALICE, { password: PASSWORD, quotaOctets: 2 ** 33 })
  const bob = await addUser(db, BOB, { password: PASSWORD })
  const dora = await addUser(db, DORA, { password: PASSWORD })
  for (const address of [EVE, ODD]) await addUser(db, address, { password: PASSWORD })
  await addUser(db, NOBODY)
  await addUser(db, `carol@${OTHER}`, { password: PASSWORD })
  await putOld(db, alice)
  await putMessage(db, alice.domainId, [alice.userId], longMessage(600_000))
  await putMessage(db, alice.domainId, [alice.userId], 'X-UIDL: own\r\nX-UIDL: two\r\n\r\nFrom\r\n')
  await putMessage(
    db,
    alice.domainId,
    [alice.userId],
    'From a Thu Nov 13 20:26:00 2025\r\nB: c\r\n',
  )
  // The same twice, for both; and of one a gap in the uids.
  for (let copy = 0; copy < 2; copy++)
    await putMessage(db, alice.domainId, [alice.userId, bob.userId], 'A: b\r\n\r\n>From c\r\n')
  await run('message', 'delete', ALICE, '5', '--yes')
  await putMessage(db, bob.domainId, [bob.userId], longMessage(60_000))
  await putMessage(db, dora.domainId, [dora.userId], 'A: for dora\r\n\r\n')
  const names = corpusFiles().flatMap(({ path }, nth) => (nth < 30 || nth % 10 === 0 ? [path] : []))
  await here.program.run(['import', ODD, ...names, '--format', 'eml']) // some are empty
  // Below what is in.
  await run('user', 'quota', BOB, '50K', '--messages', '3')
  await run('user', 'suspend', DORA)
  const added = await run('credential', 'add', EVE, '--name', 'phone', '--network', '127.0.0.0/8')
  appPassword = /\b(?:[a-z2-7]{4}-){5}[a-z2-7]{4}\b/.exec(added)?.[0] ?? ''
  await run('credential', 'add', EVE, '--name', 'attic', '--expires', '90d')
  await run('user', 'main-password', EVE, 'off')
  await run('policy', 'set', EVE, '--expire-days', '20', '--login-delay', '7')
  await run('policy', 'set', DOMAIN, '--expire-days', '30000', '--trash-days', '3')
  await run('policy', 'set', DOMAIN, '--separator', '+', '--over-quota', 'refuse')
  await run('policy', 'set', DOMAIN, '--second-login', 'wait', '--login-delay', '1')
  await run('domain', 'quota', DOMAIN, '700K', '--messages', '5')
  await run('alias', 'add', `Sales@${DOMAIN}`, BOB, `carol@${OTHER}`, ODD)
  await run('alias', 'add', `@${DOMAIN}`, ALICE)
  await run('domain', 'alias', 'add', 'alias.test', DOMAIN)
  await run('policy', 'set', DOMAIN, '--aliases', 'on', '--catch-all', 'off')
  for (const format of FORMATS)
    for (const domain of [DOMAIN, OTHER])
      await run('export', domain, '--format', format, '--to', `${format}/${domain}`)
})

afterAll(() => closePlace(here))

/** From an old server, with all that names and lists might trip over. */
async function putOld(db: Database, { domainId, userId }: { domainId: number; userId: number }) {
  const content = Buffer.from('Subject: old\r\n\r\n.From an old server\r\n')
  await deliver(db, {
    ...{ domainId, content, bodyId: randomUUID(), bodyOctets: content.length },
    recipients: [{ userId, prefix: Buffer.from('Delivered-To: alice\r\n') }],
    imported: {
      ...{ digest: Buffer.alloc(32), copy: 1, uniqueId: 'old:id,%<"1">' },
      receivedAt: new Date('2019-03-04T05:06:07.089Z'),
    },
  })
}

/** What clients and IMAP would see, in order; octets as RETR sends them. */
async function mailIn({ database }: Place, dates: 'ms' | 's'): Promise<string[]> {
  const { rows } = await sql<{ who: string; id: string; at: Date; prefix: Buffer; body: Buffer }>`
    select u.local_part as who, m.prefix, m.received_at as at,
      coalesce(m.unique_id, p.uid_validity || '.' || m.uid) as id,
      coalesce((select string_agg(c.data, ''::bytea order by c.seq) from body_chunks c
        where c.domain_id = m.domain_id and c.body_id = m.body_id), '') as body
    from messages m join users u on u.domain_id = m.domain_id and u.user_id = m.user_id
      join maildrops p on p.domain_id = m.domain_id and p.user_id = m.user_id
    order by u.local_part, m.uid`.execute(database.db.kysely)
  return rows.map(({ who, id, at, prefix, body }) => {
    const octets = Buffer.concat([prefix, body])
    const digest = createHash('sha256').update(octets).digest('hex')
    const time = dates === 'ms' ? at.getTime() : Math.floor(at.getTime() / 1_000)
    return `${who} ${id} ${time} ${octets.length} ${digest}`
  })
}

/** What an export says besides mail, but when accounts were made. */
function saidIn(directory: string) {
  const read = (name: string) => JSON.parse(readFileSync(join(directory, name), 'utf8'))
  const users = read('users.json').map(({ createdAt, ...user }: { createdAt: string }) => user)
  return { users, domain: read('domain.json'), closing: read('export.json') }
}

describe('elsewhere', () => {
  let there: Place

  beforeEach(async () => {
    there = await openPlace()
  })

  afterEach(() => closePlace(there))

  const of = (format: string, domain = DOMAIN) => join(here.program.directory, format, domain)
  const bring = (...args: string[]) => there.program.run(['import', 'popgres', ...args])

  test.each(FORMATS)(
    'what was exported as %s is brought in whole, and is the same again',
    async (format) => {
      const both = [of(format), of(format, OTHER)]
      const dry = await bring(...both, '--add-domains', '--dry-run')
      expect(dry).toMatchObject({ status: 0, stderr: '' })
      expect(dry.stdout).toContain('3 domains would be added')
      expect(dry.stdout).toContain('users: 7 would be added, 0 were there already, 0 refused')
      expect((await there.program.run(['domain', 'list'])).stdout).not.toContain(DOMAIN)

      const first = await bring(...both, '--add-domains')
      expect(first).toMatchObject({ status: 0, stderr: '' })
      expect(first.stdout.split('\n').slice(1, 2)).toEqual([
        'users: 7 added, 0 were there already, 0 refused, 0 without a password, 0 not finished',
      ])
      expect(first.stdout).toBe(
        dry.stdout.replaceAll('would be ', '').replace('nothing was changed\n', ''),
      )

      const dates = format === 'mbox' ? 's' : 'ms' // its "From " line has no more
      const mail = await mailIn(here, dates)
      expect(mail.length).toBeGreaterThan(20)
      expect(await mailIn(there, dates)).toEqual(mail)
      for (const domain of [DOMAIN, OTHER]) {
        await there.program.json(['export', domain, '--format', format, '--to', `again/${domain}`])
        const again = join(there.program.directory, 'again', domain)
        expect(saidIn(again)).toEqual(saidIn(of(format, domain)))
        if (format === 'mbox')
          for (const { directory } of saidIn(again).users)
            expect(readFileSync(join(again, directory, 'mbox'), 'latin1')).toBe(
              readFileSync(join(of(format, domain), directory, 'mbox'), 'latin1'),
            )
      }

      const second = await there.program.json<MoveInReport>(['import', 'popgres', ...both])
      expect(second).toMatchObject({
        ...{ domainsAdded: [], otherSettings: [] },
        users: { added: 0, present: 7, refused: [], unfinished: [], withoutPassword: [] },
        messages: { imported: 0, alreadyImported: mail.length, unseen: 0, skipped: [] },
        aliases: { added: 0, present: 2, refused: [] },
        domainAliases: { added: 0, present: 1, refused: [] },
      })
      expect(await mailIn(there, dates)).toEqual(mail)
    },
  )

  test('who could log in can, who could not cannot', async () => {
    expect(await bring(of('mbox'), '--add-domains', '--only', DOMAIN)).toMatchObject({ status: 1 })
    const node = await startTestNode({ url: there.database.url })
    try {
      for (const [address, password, reply] of [
        [BOB, PASSWORD, /^\+OK/],
        [ODD, PASSWORD, /^\+OK/],
        [EVE, PASSWORD, /^-ERR \[AUTH\]/],
        [EVE, appPassword, /^\+OK/],
        [DORA, PASSWORD, /^-ERR \[SYS\/PERM\] this account is suspended/],
      ] as const) {
        const client = await Pop3Client.connect(node.address)
        await client.line()
        await client.ask(`USER ${address}`)
        expect(await client.ask(`PASS ${password}`), `${address}`).toMatch(reply)
        expect(await client.ask('QUIT')).toMatch(/^\+OK/)
      }
    } finally {
      await node.stop()
    }
  })

  test('a copy that is not whole sets no password, quota or app password until it is', async () => {
    const copy = join(there.program.directory, 'copy')
    cpSync(of('eml'), copy, { recursive: true })
    const last = readdirSync(join(copy, 'bob')).sort().at(-1) ?? ''
    rmSync(join(copy, 'bob', last))
    rmSync(join(copy, 'eve'), { recursive: true })
    const cut = await bring(copy, '--add-domains')
    expect(cut.status).toBe(1)
    expect(cut.stderr).toMatch(
      /^bob@example\.test: not finished: .*bob has 2 messages, but users\.json says 3: copy it anew$/m,
    )
    expect(cut.stderr).toMatch(/^eve@example\.test: not finished: .*eve cannot be read: /m)
    const asked = async () => {
      const { rows } = await sql<{ who: string }>`
        select u.local_part as who, u.password_hash is not null as "hasPassword",
          u.quota_messages as messages, u.suspended, d.over_quota, q.quota_messages as "ofAll",
          (select count(*)::integer from credentials c where c.user_id = u.user_id) as keys
        from users u join domains d using (domain_id) left join domain_quotas q using (domain_id)
        where u.local_part in ('bob', 'dora', 'eve') order by 1`.execute(there.database.db.kysely)
      return rows
    }
    const waits = { hasPassword: false, messages: null, over_quota: 'refuse', ofAll: null, keys: 0 }
    expect(await asked()).toEqual([
      { who: 'bob', suspended: false, ...waits },
      { who: 'dora', suspended: true, ...waits, hasPassword: true },
      { who: 'eve', suspended: false, ...waits },
    ])
    const { stdout } = await bring(of('eml'))
    expect(stdout).toContain('users: 0 added, 6 were there already, 0 refused')
    expect(stdout).toContain('messages: 1 imported')
    const whole = { hasPassword: true, over_quota: 'refuse', ofAll: 5 }
    expect(await asked()).toEqual([
      { who: 'bob', suspended: false, ...whole, messages: 3, keys: 0 },
      { who: 'dora', suspended: true, ...whole, messages: null, keys: 0 },
      { who: 'eve', suspended: false, ...whole, messages: null, keys: 2 },
    ])
  })

  test('what is here already stays, and differences are told', async () => {
    await there.program.run(['domain', 'add', DOMAIN])
    await there.program.run(['policy', 'set', DOMAIN, '--separator', '-'])
    await addUser(there.database.db, BOB, { password: 'another long one', quotaOctets: 2 ** 20 })
    const { stdout, stderr } = await bring(of('maildir'), of('maildir', OTHER), '--add-domains')
    expect(stderr).toBe('')
    expect(stdout).toMatch(
      /^example\.test was there already and keeps its own .*expireDays.*separator.*$/m,
    )
    const [bob] = await there.program
      .json<object[]>(['user', 'list', DOMAIN])
      .then((users) => users.filter((user) => 'address' in user && user.address === BOB))
    expect(bob).toMatchObject({ quotaOctets: 2 ** 20, quotaMessages: null })
    expect(await there.program.json(['policy', 'show', DOMAIN])).toMatchObject({ separator: '-' })
  })

  test('what is no whole export is refused, and nothing of it repeated', async () => {
    const copy = join(there.program.directory, 'copy')
    cpSync(of('mbox'), copy, { recursive: true })
    const says = async (line: RegExp, ...args: string[]) => {
      const { status, stderr } = await bring(copy, '--add-domains', ...args)
      expect(stderr).toMatch(line)
      expect(stderr).not.toContain('argon2')
      expect(status).toBe(1)
    }
    const users = JSON.parse(readFileSync(join(copy, 'users.json'), 'utf8'))
    const mbox = readFileSync(join(copy, 'bob', 'mbox'), 'latin1')
    writeFileSync(join(copy, 'bob', 'mbox'), mbox.replace('X-UIDL', 'X-Other'), 'latin1')
    writeFileSync(join(copy, 'users.json'), JSON.stringify([{ ...users[1], quotaOctets: -1 }]))
    await says(/users\.json user 1: is no user of an export/)
    const [keys] = users.filter(({ address }: { address: string }) => address === EVE)
    const elsewhere = { ...keys.credentials[0], networks: ['everywhere'] }
    const wrong = { ...keys, credentials: [elsewhere] }
    writeFileSync(join(copy, 'users.json'), JSON.stringify([wrong]))
    await says(/users\.json user 1: is no user of an export/)
    writeFileSync(join(copy, 'users.json'), JSON.stringify([users[1]]))
    await says(/mbox, message 1: does not begin with X-UIDL/, '--dry-run')
    writeFileSync(join(copy, 'domain.json'), '{}')
    await says(/domain\.json is not the domain\.json of an export/)
    rmSync(join(copy, 'export.json'))
    await says(/copy has no export\.json: the export was cut, begin it again/)
  })
})

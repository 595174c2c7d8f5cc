/** `popgres export` through the real program, and its snapshot under the feet of deliveries. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { MessageSummary } from '../../../src/admin/operations/messages.ts'
import { type ExportReport, exportMail } from '../../../src/admin/transfer/export.ts'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { readMbox } from '../../../src/cli/formats/mbox.ts'
import { deliver } from '../../../src/storage/deliveries.ts'
import { corpusFiles } from '../../support/corpus.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

const DOMAIN = 'example.test'
const ALICE = `alice@${DOMAIN}`
const ODD = `a/b.c@${DOMAIN}`
const SLEEPER = `sleeper@${DOMAIN}`
const KEYS_ONLY = `keys.only@${DOMAIN}`
const PASSWORD = 'one long password'
/** From elsewhere, with all that file names and lists might trip over. */
const OLD_ID = `old:id,%"'\\<é>`.replace('é', 'e')
const OLD_DAY = new Date('2019-03-04T05:06:07Z')
/** Lines that an mbox quotes; the message is longer than a stretch. */
const QUOTES = `Subject: quotes\r\n\r\nFrom here\r\n>From there\r\n From\r\n${'>'.repeat(40)}From\r\n`
const LONG = Buffer.concat([Buffer.from(QUOTES.repeat(9_000)), longMessage(600_000)])

interface Report extends Omit<ExportReport, 'users'> {
  users: number
}

let database: TestDatabase
let program: Program
let alice: { domainId: number; userId: number }

beforeEach(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  alice = await addUser(database.db, ALICE, { password: PASSWORD, quotaOctets: 2 ** 33 })
  await addUser(database.db, ODD)
  await addUser(database.db, `nobody.yet@${DOMAIN}`)
  const { domainId, userId } = alice
  const content = Buffer.from('Subject: old\r\n\r\nFrom an old server\r\n')
  await deliver(database.db, {
    ...{ domainId, content, bodyId: randomUUID(), bodyOctets: content.length },
    recipients: [{ userId, prefix: Buffer.from('Delivered-To: alice\r\n') }],
    imported: { digest: Buffer.alloc(32), copy: 1, receivedAt: OLD_DAY, uniqueId: OLD_ID },
  })
  await putMessage(database.db, domainId, [userId], LONG)
  await putMessage(database.db, domainId, [userId], QUOTES)
})

afterEach(async () => {
  program.close()
  await database.close()
})

/** With all the oddities that there are. */
async function addCorpus(): Promise<void> {
  const names = corpusFiles().map((file) => file.path)
  // Some of them are empty.
  await program.run(['import', ODD, ...names, '--format', 'eml'])
  expect((await list(ODD)).length).toBeGreaterThan(10)
}

const list = (address: string, to = program): Promise<MessageSummary[]> =>
  to.json(['message', 'list', address])

const path = (...names: string[]): string => join(program.directory, ...names)

/** As RETR sends them, in order. */
async function stored(address: string, db = database.db): Promise<string[]> {
  const { rows } = await sql<{ prefix: Buffer; body: Buffer }>`
    select m.prefix, coalesce((select string_agg(c.data, ''::bytea order by c.seq)
        from body_chunks c where c.domain_id = m.domain_id and c.body_id = m.body_id), '') as body
    from find_user(${address}) f
      join messages m on m.domain_id = f.domain_id and m.user_id = f.user_id
    order by m.uid`.execute(db.kysely)
  return rows.map(({ prefix, body }) => digest(Buffer.concat([prefix, body])))
}

const digest = (octets: Buffer): string => createHash('sha256').update(octets).digest('hex')

const modeOf = (file: string): number => statSync(file).mode & 0o777

test('a Maildir has the octets, the day of receipt, and Dovecot’s list of unique-ids', async () => {
  await addCorpus()
  const report = await program.json<Report>(['export', DOMAIN, '--to', 'out'])
  expect(report).toMatchObject({ users: 3, missing: [] })
  for (const [address, directory] of [
    [ALICE, 'alice'],
    [ODD, 'a%2fb.c'],
  ] as const) {
    const messages = await list(address)
    const [head, ...lines] = readFileSync(path('out', directory, 'dovecot-uidlist'), 'latin1')
      .trimEnd()
      .split('\n')
    expect(head).toMatch(new RegExp(`^3 V[1-9]\\d{8,9} N${messages.length + 1}$`))
    expect(lines.map((line) => / P(\S+) /.exec(line)?.[1])).toEqual(
      messages.map(({ uniqueId }) => uniqueId),
    )
    const files = lines.map((line) =>
      path('out', directory, 'cur', `${line.slice(line.indexOf(' :') + 2)}:2,`),
    )
    expect(files.map((file) => digest(readFileSync(file)))).toEqual(await stored(address))
    expect(files.map((file) => Math.round(statSync(file).mtimeMs))).toEqual(
      messages.map(({ receivedAt }) => new Date(receivedAt).getTime()),
    )
    expect(readdirSync(path('out', directory, 'cur'))).toHaveLength(files.length)
  }
  expect((await list(ALICE))[0]).toMatchObject({ uniqueId: OLD_ID })
})

test('users.json has what a user needs elsewhere, for its owner’s eyes', async () => {
  await program.run(['credential', 'add', ALICE, '--name', 'phone'])
  await program.json(['export', DOMAIN, '--to', 'out'])
  for (const name of ['users.json', 'export.json']) expect(modeOf(path('out', name))).toBe(0o600)
  for (const name of ['.', 'alice', 'alice/cur']) expect(modeOf(path('out', name))).toBe(0o700)
  const users = JSON.parse(readFileSync(path('out', 'users.json'), 'utf8'))
  expect(users).toHaveLength(3)
  expect(users[0]).toMatchObject({
    ...{ address: ALICE, directory: 'alice', quotaOctets: 2 ** 33, isSuspended: false },
    hash: expect.stringMatching(/^\$argon2id\$/),
    credentials: [
      { kind: 'app-password', name: 'phone', digest: expect.stringMatching(/^\w{64}$/) },
    ],
  })
  expect(users[2]).toMatchObject({ address: `nobody.yet@${DOMAIN}`, hash: null })
})

test('an mbox is read again as it was, with X-UIDL fields before each message', async () => {
  await addCorpus()
  await program.json(['export', DOMAIN, '--format', 'mbox', '--to', 'out'])
  for (const [address, directory] of [
    [ALICE, 'alice'],
    [ODD, 'a%2fb.c'],
  ] as const) {
    const messages = await list(address)
    const found: { uniqueId: string; octets: string; receivedAt: number }[] = []
    for await (const item of readMbox(MailPath.of(path('out', directory, 'mbox')))) {
      if ('refusal' in item) throw new Error(item.refusal)
      const pieces: Buffer[] = []
      for await (const piece of item.open()) pieces.push(piece)
      const octets = Buffer.concat(pieces)
      const end = octets.indexOf('\r\n') + 2
      const uniqueId = /^X-UIDL: (.*)\r\n$/.exec(octets.toString('latin1', 0, end))?.[1] ?? ''
      const receivedAt = item.receivedAt?.getTime() ?? 0
      found.push({ uniqueId, octets: digest(octets.subarray(end)), receivedAt })
    }
    const octets = await stored(address)
    expect(found).toEqual(
      messages.map(({ uniqueId, receivedAt }, index) => ({
        uniqueId,
        octets: octets[index],
        receivedAt: Math.floor(new Date(receivedAt).getTime() / 1_000) * 1_000,
      })),
    )
  }
})

test('.eml files have the octets, and the unique-ids in their names', async () => {
  await program.json(['export', ALICE, '--format', 'eml', '--to', 'out'])
  const names = readdirSync(path('out', 'alice')).sort()
  const ids = names.map((name) => decodeURIComponent(/^\d{10}_(.*)\.eml$/.exec(name)?.[1] ?? ''))
  expect(ids).toEqual((await list(ALICE)).map(({ uniqueId }) => uniqueId))
  const octets = names.map((name) => digest(readFileSync(path('out', 'alice', name))))
  expect(octets).toEqual(await stored(ALICE))
})

test('a damaged message is named and left out, a wrong counter told; status 1', async () => {
  await database.db.kysely
    .deleteFrom('body_chunks')
    .where('seq', '=', 70)
    .where('domain_id', '=', alice.domainId)
    .execute()
  for (const format of ['maildir', 'mbox', 'eml']) {
    const { status, stdout, stderr } = await program.run([
      'export',
      ALICE,
      '--format',
      format,
      '--to',
      format,
    ])
    expect(stderr).toMatch(/^alice@example\.test, message 2: damaged: .*chunk 64/)
    expect(stdout).toMatch(/^exported 2 messages .* of 1 user, 1 missing\n$/)
    expect(status).toBe(1)
    expect(JSON.parse(readFileSync(path(format, 'export.json'), 'utf8'))).toMatchObject({
      messages: 2,
      missing: [{ address: ALICE, uid: 2 }],
    })
  }
  expect(readdirSync(path('maildir', 'alice', 'cur'))).toHaveLength(2)
  expect(readFileSync(path('maildir', 'alice', 'dovecot-uidlist'), 'latin1')).not.toMatch(/^2 /m)
  expect(readdirSync(path('eml', 'alice'))).toHaveLength(2)
  const mbox = readFileSync(path('mbox', 'alice', 'mbox'), 'latin1')
  expect(mbox.match(/^From /gm)).toHaveLength(2)
  expect(mbox).not.toContain('line 1 ')
  await sql`update maildrops set message_count = 5 where user_id = ${alice.userId}`.execute(
    database.db.kysely,
  )
  const { status, stderr } = await program.run(['export', ALICE, '--dry-run'])
  expect(stderr).toContain('the counters say that there are 5 messages, but there are 3')
  expect(status).toBe(1)
})

test('a dry run reads all and writes nothing; what cannot be is refused in words', async () => {
  const dry = await program.run(['export', DOMAIN, '--dry-run'])
  expect(dry).toMatchObject({ status: 0, stderr: '' })
  expect(dry.stdout).toMatch(/^would export \d+ messages \(\d+ octets\) of 3 users, 0 missing\n$/)
  expect(readdirSync(program.directory)).toEqual([])
  mkdirSync(path('full'))
  writeFileSync(path('full', 'something'), '')
  const cases: [string[], RegExp][] = [
    [[DOMAIN], /say where to: --to DIRECTORY, or --dry-run/],
    [[DOMAIN, '--to', 'full'], /full is not empty/],
    [[DOMAIN, '--to', 'full/something'], /full\/something/],
    [['elsewhere.test', '--to', 'out'], /there is no domain elsewhere\.test/],
    [[`bob@${DOMAIN}`, '--to', 'out'], /there is no user bob@example\.test/],
  ]
  for (const [args, line] of cases) {
    const { status, stderr } = await program.run(['export', ...args])
    expect(stderr).toMatch(line)
    expect(status).toBe(1)
  }
  expect(existsSync(path('out'))).toBe(false)
})

test('a maildrop is written as it was when it was opened; its user is not locked out', async () => {
  const node = await startTestNode({ url: database.url })
  const written: number[] = []
  let isChanged = false
  try {
    const report = await exportMail(database.db, {
      whose: ALICE,
      openMaildrop: async () => ({
        async write(message) {
          if (!isChanged) {
            isChanged = true
            const client = await Pop3Client.login(node.address, ALICE, PASSWORD)
            for (const command of ['DELE 2', 'DELE 3', 'QUIT'])
              expect(await client.ask(command)).toMatch(/^\+OK/)
            await sql`delete from trash`.execute(database.db.kysely)
            await sql`delete from body_chunks where domain_id = ${alice.domainId}`.execute(
              database.db.kysely,
            )
            await putMessage(database.db, alice.domainId, [alice.userId], 'A: new\r\n\r\n')
          }
          let octets = 0
          for await (const piece of message.pieces()) octets += piece.length
          expect(octets).toBe(message.octets)
          written.push(message.uid)
        },
        async finish() {},
      }),
    })
    expect(report).toMatchObject({ messages: 3, missing: [] })
  } finally {
    await node.stop()
  }
  expect(written).toEqual([1, 2, 3])
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([1, 4])
})

/** Users who may not log in, or not with their password. */
async function addSleepers(): Promise<void> {
  await addUser(database.db, SLEEPER, { password: PASSWORD })
  await addUser(database.db, KEYS_ONLY, { password: PASSWORD })
  for (const args of [
    ['user', 'suspend', SLEEPER],
    ['user', 'quota', SLEEPER, '50K', '--messages', '3'],
    ['user', 'main-password', KEYS_ONLY, 'off'],
    ['policy', 'set', KEYS_ONLY, '--expire-days', '20', '--login-delay', '7'],
  ])
    expect(await program.run(args)).toMatchObject({ status: 0 })
}

test('user import wakes nobody up: suspended, without a main password, with limits', async () => {
  await addSleepers()
  await program.json(['export', DOMAIN, '--to', 'out'])
  const other = await openTestDatabase()
  const there = openProgram({ DATABASE_URL: other.url })
  try {
    await there.run(['domain', 'add', DOMAIN])
    const { stdout } = await there.run(['user', 'import', path('out', 'users.json')])
    expect(stdout).toBe('added 3 users, refused 2 lines\n')
    expect(await there.json(['user', 'show', SLEEPER])).toMatchObject({
      ...{ isSuspended: true, quotaOctets: 51_200, quotaMessages: 3 },
    })
    expect(await there.json(['user', 'show', KEYS_ONLY])).toMatchObject({
      ...{ isSuspended: false, isMainPasswordAllowed: false },
    })
    expect(await there.json(['policy', 'show', KEYS_ONLY])).toMatchObject({
      ...{ expireDays: 20, loginDelaySeconds: 7, inherited: [] },
    })
  } finally {
    there.close()
    await other.close()
  }
})

const OPERATING = fileURLToPath(new URL('../../../docs/operating.md', import.meta.url))
const hasJq = spawnSync('jq', ['--version']).status === 0

test.skipIf(!hasJq)('the line for Dovecot leaves out who may not log in (no jq)', async () => {
  await addSleepers()
  await program.json(['export', DOMAIN, '--to', 'out'])
  const [line = ''] = /^jq .*$/m.exec(readFileSync(OPERATING, 'utf8')) ?? []
  execFileSync('sh', ['-c', line], { cwd: path('out') })
  expect(readFileSync(path('out', 'passwd'), 'utf8')).toMatch(
    /^alice@example\.test:\{ARGON2ID\}\$argon2id\$\S+\n$/,
  )
})

test('users.json is what user import takes; the same password logs in there', async () => {
  await program.json(['export', DOMAIN, '--to', 'out'])
  const other = await openTestDatabase()
  const there = openProgram({ DATABASE_URL: other.url })
  const node = await startTestNode({ url: other.url })
  try {
    await there.run(['domain', 'add', DOMAIN])
    const { stdout, stderr } = await there.run(['user', 'import', path('out', 'users.json')])
    expect(stdout).toBe('added 1 user, refused 2 lines\n')
    expect(stderr).toContain('has neither a password nor a hash')
    expect(await there.run(['import', ALICE, path('out', 'alice')])).toMatchObject({ status: 0 })
    expect(await stored(ALICE, other.db)).toHaveLength(3)
    const client = await Pop3Client.login(node.address, ALICE, PASSWORD)
    expect(await client.ask('QUIT')).toMatch(/^\+OK/)
    writeFileSync(path('other.json'), '{"secret": 1}')
    expect((await there.run(['user', 'import', path('other.json')])).stderr).toMatch(
      /other\.json is not the users\.json of an export$/m,
    )
  } finally {
    await node.stop()
    there.close()
    await other.close()
  }
})

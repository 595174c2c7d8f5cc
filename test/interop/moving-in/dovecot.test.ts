/**
 * From a real Dovecot, filled with the corpus: who has fetched everything there fetches nothing here,
 * whatever form its unique-ids have; order, dates and passwords are the same.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { openProgram, type Program } from '../../integration/admin/program.ts'
import { toStored } from '../../support/lmtp.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { describeClients } from '../clients.ts'
import {
  addOldMessage,
  KeepingClient,
  OLD_MESSAGES,
  PASSWORD,
  readMaildrop,
  SOME_MESSAGES,
  writeOldMaildir,
} from './old-mail.ts'
import {
  MAIL_OWNER,
  makePlace,
  type OldServer,
  removePlace,
  startDovecot,
} from './private-server.ts'
import { countUsers, datesOf } from './rows.ts'

let database: TestDatabase
let node: TestNode
let program: Program

/** Each form of unique-id with the setting that makes it and the option that finds it. */
const FORMATS = [
  { name: 'its default', setting: '', options: [] },
  { name: '%v.%u', setting: 'pop3_uidl_format = %v.%u', options: ['--uidl-format', '%v.%u'] },
  { name: '%f', setting: 'pop3_uidl_format = %f', options: ['--uidl-format', '%f'] },
  { name: '%g', setting: 'pop3_uidl_format = %g', options: ['--uidl-format', '%g'] },
  { name: '%u-%Xv', setting: 'pop3_uidl_format = %u-%Xv', options: ['--uidl-format', '%u-%Xv'] },
  {
    name: 'saved ones',
    setting: 'pop3_uidl_format = kept-%u\npop3_save_uidl = yes',
    options: [], // they stand in the list, whatever the format is
  },
] as const

function hashOf(scheme: string): string {
  return execFileSync('doveadm', ['pw', '-s', scheme, '-p', PASSWORD], { encoding: 'utf8' }).trim()
}

function passwdLine(directory: string, user: string, hash = hashOf('SHA512-CRYPT')): string {
  const home = join(directory, 'mail', user)
  return `${user}:${hash}:${MAIL_OWNER}:${MAIL_OWNER}::${home}::\n`.replace(
    `:${MAIL_OWNER}:${MAIL_OWNER}:`,
    `:${idOf('-u')}:${idOf('-g')}:`,
  )
}

function idOf(option: string): string {
  return execFileSync('id', [option, MAIL_OWNER], { encoding: 'utf8' }).trim()
}

/** SERVER: IMAP cannot carry NUL (RFC 9051 §4.3); Dovecot sends 0x80 instead. */
function withoutNul(message: Buffer): Buffer {
  return Buffer.from(message.map((octet) => (octet === 0 ? 0x80 : octet)))
}

/** Of the node, which has told the others that it lives. */
async function port(): Promise<number> {
  await node.keeper.beat()
  return Number(node.address.split(':')[1])
}

describeClients('moving in from Dovecot', ['fetchmail', 'dovecot', 'doveadm'], () => {
  beforeAll(async () => {
    database = await openTestDatabase()
    node = await startTestNode({ url: database.url })
    program = openProgram({ DATABASE_URL: database.url })
  })

  afterAll(async () => {
    program.close()
    await node.stop()
    await database.close()
  })

  for (const [index, { name, setting, options }] of FORMATS.entries())
    describe(name, () => {
      const user = `user${index}@old.test`
      const messages = index === 0 ? OLD_MESSAGES : SOME_MESSAGES
      let old: OldServer
      let home: string

      beforeAll(async () => {
        const directory = makePlace('dovecot')
        home = join(directory, 'mail', user)
        mkdirSync(home, { recursive: true })
        writeOldMaildir(join(home, 'Maildir'), MAIL_OWNER, messages)
        execFileSync('chown', [MAIL_OWNER, home])
        old = await startDovecot(directory, passwdLine(directory, user), setting)
      })

      afterAll(async () => {
        await old.stop()
        removePlace(old.directory)
      })

      it('keeps unique-ids, order, octets, dates and passwords', async () => {
        const client = new KeepingClient(old.directory, user)
        const first = await client.poll(old.pop3Port)
        expect(first.fetched, first.told.slice(-2000)).toBe(messages.length)
        expect((await client.poll(old.pop3Port)).fetched).toBe(0)
        const before = await readMaildrop(old.pop3Port, user)

        const args = ['--users', join(old.directory, 'passwd'), ...options, '--add-domains']
        const move = (...more: string[]) =>
          program.json<MoveInReport>(['import', 'dovecot', ...args, '--only', user, ...more])
        const pretended = await move('--dry-run')
        expect(await countUsers(database)).toBe(index)
        const report = await move()
        expect(report).toMatchObject({
          users: { added: 1, present: 0, refused: [], withoutPassword: [], unfinished: [] },
          messages: { imported: messages.length, alreadyImported: 0, unseen: 0, skipped: [] },
        })
        expect(pretended).toEqual({ ...report, isDryRun: true })

        expect((await client.poll(await port())).fetched).toBe(0)
        const after = await readMaildrop(await port(), user)
        expect(after.uniqueIds).toEqual(before.uniqueIds)
        for (const [at, { content, name: file }] of messages.entries())
          expect(after.messages[at]?.equals(toStored(content)), file).toBe(true)
        const dates = await datesOf(database, user)
        expect(dates).toEqual(messages.map(({ receivedAt }) => receivedAt))

        // What has come since, in files that Dovecot has shown or not.
        const late = { content: Buffer.from('Subject: late\n\nx\n'), receivedAt: new Date() }
        addOldMessage(join(home, 'Maildir'), late, 9_000, true)
        execFileSync('chown', ['-R', MAIL_OWNER, home])
        expect((await client.poll(old.pop3Port)).fetched).toBe(1)
        const second = await move()
        expect(second).toMatchObject({
          users: { added: 0, present: 1 },
          messages: { imported: 1, alreadyImported: messages.length, skipped: [] },
        })
        expect((await client.poll(await port())).fetched).toBe(0)
        expect((await readMaildrop(await port(), user)).messages).toHaveLength(messages.length + 1)
      })
    })

  describe('over its IMAP', () => {
    const user = 'far@old.test'
    let old: OldServer

    beforeAll(async () => {
      const directory = makePlace('dovecot')
      const home = join(directory, 'mail', user)
      mkdirSync(home, { recursive: true })
      writeOldMaildir(join(home, 'Maildir'), MAIL_OWNER)
      execFileSync('chown', [MAIL_OWNER, home])
      old = await startDovecot(directory, passwdLine(directory, user))
    })

    afterAll(async () => {
      await old.stop()
      removePlace(old.directory)
    })

    it('forms the unique-ids that its POP3 formed, and fetches nothing twice', async () => {
      const client = new KeepingClient(old.directory, user)
      expect((await client.poll(old.pop3Port)).fetched).toBe(OLD_MESSAGES.length)
      const users = join(old.directory, 'users.csv')
      writeFileSync(users, `address,password\n${user},${PASSWORD}\nno@old.test,wrong\n`)
      const server = ['--server', `127.0.0.1:${old.imapPort}`, '--security', 'none']
      const args = ['import', 'imap', ...server, '--users', users, '--add-domains']
      const report = await program.json<MoveInReport>([...args, '--only', user])
      expect(report).toMatchObject({
        users: { added: 1, refused: [], withoutPassword: [], unfinished: [] },
        messages: { imported: OLD_MESSAGES.length, unseen: 0, skipped: [] },
      })
      expect((await client.poll(await port())).fetched).toBe(0)
      const before = await readMaildrop(old.pop3Port, user)
      const after = await readMaildrop(await port(), user)
      expect(after.uniqueIds).toEqual(before.uniqueIds)
      for (const [at, { content, name }] of OLD_MESSAGES.entries())
        expect(after.messages[at]?.equals(withoutNul(toStored(content))), name).toBe(true)
      expect(await datesOf(database, user)).toEqual(OLD_MESSAGES.map((old) => old.receivedAt))

      const again = await program.run([...args, '--json'])
      expect(again.status).toBe(1)
      expect(JSON.parse(again.stdout)).toMatchObject({
        users: { present: 1, unfinished: [{ address: 'no@old.test' }] },
        messages: { imported: 0, alreadyImported: OLD_MESSAGES.length, skipped: [] },
      })
      expect(again.stdout + again.stderr).not.toContain('wrong')
    })
  })
})

/**
 * From a real Courier, filled with the corpus: who has fetched everything there fetches nothing here;
 * of each version of its list that its pop3d reads.
 */

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { openProgram, type Program } from '../../integration/admin/program.ts'
import { toStored } from '../../support/lmtp.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { describeWhere } from '../clients.ts'
import {
  addOldMessage,
  KeepingClient,
  OLD_MESSAGES,
  type OldMessage,
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
  startCourier,
  whyNoCourier,
} from './private-server.ts'
import { datesOf } from './rows.ts'

let database: TestDatabase
let node: TestNode
let program: Program
let old: OldServer

const LIST = 'courierpop3dsizelist'

/** Users, and what the list of each looked like before the server's own was written. */
const USERS = [
  { user: 'new@old.test', version: 'its own', messages: OLD_MESSAGES, list: undefined },
  {
    user: 'one@old.test',
    version: 'version 1',
    messages: SOME_MESSAGES,
    list: (names: string[]) => listOne(names),
  },
  {
    user: 'none@old.test',
    version: 'no version',
    messages: SOME_MESSAGES,
    list: (names: string[]) => listZero(names),
  },
] as const

function listZero(names: string[]): string {
  return names.map((name) => `${name} 100\n`).join('')
}

function listOne(names: string[]): string {
  return `/1 ${names.length + 1}\n${names.map((name, at) => `${name} 100 ${at + 1}\n`).join('')}`
}

function idOf(option: string): string {
  return execFileSync('id', [option, MAIL_OWNER], { encoding: 'utf8' }).trim()
}

function userdbLine(directory: string, user: string): string {
  const home = join(directory, 'mail', user)
  const hash = `{SHA512}${createHash('sha512').update(PASSWORD).digest('base64')}`
  const owner = `uid=${idOf('-u')}|gid=${idOf('-g')}`
  return `${user}\t${owner}|home=${home}|mail=${home}/Maildir|systempw=${hash}\n`
}

/** Of the node, which has told the others that it lives. */
async function port(): Promise<number> {
  await node.keeper.beat()
  return Number(node.address.split(':')[1])
}

describeWhere('moving in from Courier', whyNoCourier(), () => {
  beforeAll(async () => {
    database = await openTestDatabase()
    node = await startTestNode({ url: database.url })
    program = openProgram({ DATABASE_URL: database.url })
    const directory = makePlace('courier')
    for (const { user, list, messages } of USERS) {
      const maildir = join(directory, 'mail', user, 'Maildir')
      mkdirSync(maildir, { recursive: true })
      if (list !== undefined) writeFileSync(join(maildir, LIST), list(writeAll(maildir, messages)))
      else writeAll(maildir, messages)
      execFileSync('chown', ['-R', MAIL_OWNER, join(directory, 'mail', user)])
    }
    old = await startCourier(
      directory,
      USERS.map(({ user }) => userdbLine(directory, user)).join(''),
    )
  })

  afterAll(async () => {
    program?.close()
    await node?.stop()
    await database?.close()
    await old?.stop()
    if (old !== undefined) removePlace(old.directory)
  })

  /** @returns the names in the order of the maildrop, without flags */
  function writeAll(maildir: string, messages: readonly OldMessage[]): string[] {
    writeOldMaildir(maildir, MAIL_OWNER, messages)
    const names = ['new', 'cur'].flatMap((name) => readdirSync(join(maildir, name)))
    return names.map((name) => name.replace(/:.*/, '')).sort()
  }

  for (const { user, version, messages } of USERS)
    describe(`a list of ${version}`, () => {
      it('keeps unique-ids, order, octets, dates and passwords', async () => {
        const client = new KeepingClient(old.directory, user)
        const first = await client.poll(old.pop3Port)
        expect(first.fetched, first.told.slice(-2000)).toBe(messages.length)
        expect((await client.poll(old.pop3Port)).fetched).toBe(0)
        const before = await readMaildrop(old.pop3Port, user)

        const args = ['--users', join(old.directory, 'etc/userdb'), '--add-domains']
        const move = () =>
          program.json<MoveInReport>(['import', 'courier', ...args, '--only', user])
        expect(await move()).toMatchObject({
          users: { added: 1, refused: [], withoutPassword: [], unfinished: [] },
          messages: { imported: messages.length, unseen: 0, skipped: [] },
        })

        expect((await client.poll(await port())).fetched).toBe(0)
        const after = await readMaildrop(await port(), user)
        expect(after.uniqueIds).toEqual(before.uniqueIds)
        for (const [at, { content, name }] of messages.entries())
          expect(after.messages[at]?.equals(toStored(content)), name).toBe(true)
        expect(await datesOf(database, user)).toEqual(messages.map((each) => each.receivedAt))

        const late = { content: Buffer.from('Subject: late\n\nx\n'), receivedAt: new Date() }
        const home = join(old.directory, 'mail', user)
        addOldMessage(join(home, 'Maildir'), late, 9_000, true)
        execFileSync('chown', ['-R', MAIL_OWNER, home])
        expect((await client.poll(old.pop3Port)).fetched).toBe(1)
        expect(await move()).toMatchObject({
          messages: { imported: 1, alreadyImported: messages.length, skipped: [] },
        })
        expect((await client.poll(await port())).fetched).toBe(0)
        expect(readFileSync(join(home, 'Maildir', LIST), 'latin1')).toMatch(/^\/\d /)
      })
    })
})

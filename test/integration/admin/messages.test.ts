/** Messages of a maildrop, through the real program. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { MessageSummary } from '../../../src/admin/operations/messages.ts'
import type { User } from '../../../src/admin/operations/users.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import { type Ids, putSession, sessionCount } from './rows.ts'

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

/** A user with messages of these contents. */
async function fill(address: string, contents: readonly (string | Buffer)[]): Promise<Ids> {
  const ids = await addUser(database.db, address)
  for (const content of contents) await putMessage(database.db, ids.domainId, [ids.userId], content)
  return ids
}

const list = (address: string, ...args: string[]) =>
  program.json<MessageSummary[]>(['message', 'list', address, ...args])

const trashed = async ({ domainId, userId }: Ids): Promise<number[]> => {
  const rows = await database.db.kysely
    .selectFrom('trash')
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('uid')
    .execute()
  return rows.map((row) => row.uid)
}

describe('message list', () => {
  test.concurrent('tells uid, unique-id, size and subject, harmless on a terminal', async () => {
    await fill('a@list.example', ['Subject: \x1b[31mred\r\n\r\n', 'From: x\r\n\r\nno subject\r\n'])
    const messages = await list('A@list.example')
    expect(messages.map(({ uid, octets, subject }) => [uid, octets, subject])).toEqual([
      [1, 21, '\x1b[31mred'],
      [2, 23, ''],
    ])
    expect(messages[0]?.uniqueId).toMatch(/^\d+\.1$/)
    const { stdout } = await program.run(['message', 'list', 'a@list.example'])
    expect(stdout).toMatch(/^ +1 +21 +\S+ \S+Z +\d+\.1 +\\x1b\[31mred$/m)
    expect(stdout).not.toContain('\x1b')
  })

  test.concurrent('goes on where a page ended', async () => {
    await fill('b@list.example', ['1\r\n', '2\r\n', '3\r\n'])
    const first = await list('b@list.example', '--limit', '2')
    expect(first).toMatchObject([{ uid: 1 }, { uid: 2 }])
    for (const json of [[], ['--json']]) {
      const args = ['message', 'list', 'b@list.example', '--limit', '2', ...json]
      expect((await program.run(args)).stderr).toBe('there are more: add --after 2\n')
      const whole = await program.run([
        'message',
        'list',
        'b@list.example',
        '--limit',
        '3',
        ...json,
      ])
      expect(whole.stderr).toBe('')
    }
    const rest = await list('b@list.example', '--after', '2')
    expect(rest).toMatchObject([{ uid: 3 }])
  })
})

describe('message show', () => {
  test.concurrent('prints the octets as they are, piece by piece', async () => {
    const large = longMessage(600_000)
    await fill('a@show.example', ['.dot\r\n8-bit: \xfc\r\n', large])
    const [small, big] = await Promise.all([
      program.run(['message', 'show', 'a@show.example', '1']),
      program.run(['message', 'show', 'a@show.example', '2']),
    ])
    expect(small.stdout).toBe('.dot\r\n8-bit: \ufffd\r\n') // the test reads it as UTF-8
    expect(big.stdout).toBe(large.toString('latin1'))
  })

  test.concurrent('by unique-id; what is not there is refused', async () => {
    await fill('b@show.example', ['Subject: x\r\n\r\n'])
    const uniqueId = (await list('b@show.example'))[0]?.uniqueId ?? ''
    const show = (id: string) => program.run(['message', 'show', 'b@show.example', id])
    expect(await show(uniqueId)).toMatchObject({ status: 0, stdout: 'Subject: x\r\n\r\n' })
    for (const id of ['2', '99999999999', 'x.1']) {
      const { status, stderr } = await show(id)
      expect(status, id).toBe(1)
      expect(stderr).toBe(
        `popgres: there is no message ${id} of b@show.example: ` +
          'see "popgres message list b@show.example"\n',
      )
    }
  })
})

describe('message delete', () => {
  test.concurrent('moves to the trash and keeps the counters right', async () => {
    const ids = await fill('a@delete.example', ['1\r\n', '22\r\n', '333\r\n'])
    const uniqueId = (await list('a@delete.example'))[2]?.uniqueId ?? ''
    const args = ['message', 'delete', 'A@delete.example', '1', uniqueId, '1', '--yes']
    expect(await program.run(args)).toEqual({
      status: 0,
      stdout: 'deleted 2 messages of A@delete.example\n',
      stderr: '',
    })
    expect(await trashed(ids)).toEqual([1, 3])
    expect(await program.json<User>(['user', 'show', 'a@delete.example'])).toMatchObject({
      messageCount: 1,
      octets: 4,
    })
    expect(await sessionCount(database.db, ids)).toBe(0)
  })

  test.concurrent('one that is not there: the others go, status 1', async () => {
    const ids = await fill('b@delete.example', ['1\r\n'])
    const { status, stderr } = await program.run([
      'message',
      'delete',
      'b@delete.example',
      '1',
      '7',
      '--yes',
    ])
    expect({ status, stderr }).toEqual({ status: 1, stderr: 'not there: 7\n' })
    expect(await trashed(ids)).toEqual([1])
  })

  test.concurrent('without --yes and terminal nothing goes', async () => {
    const ids = await fill('c@delete.example', ['1\r\n'])
    const { status, stderr } = await program.run(['message', 'delete', 'c@delete.example', '1'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/1 message of c@delete\.example[^\n]*--yes/)
    expect(await trashed(ids)).toEqual([])
  })

  test.concurrent('an open session: refused, unless it is kicked', async () => {
    const ids = await fill('d@delete.example', ['1\r\n'])
    await putSession(database.db, ids)
    const args = ['message', 'delete', 'd@delete.example', '1', '--yes']
    const refused = await program.run(args)
    expect(refused.status).toBe(1)
    expect(refused.stderr).toMatch(
      /^popgres: d@delete\.example has its maildrop open[^\n]*--kick\n$/,
    )
    expect(await trashed(ids)).toEqual([])
    expect(await program.run([...args, '--kick'])).toMatchObject({ status: 0, stderr: '' })
    expect(await trashed(ids)).toEqual([1])
    expect(await sessionCount(database.db, ids)).toBe(0)
  })
})

describe('import', () => {
  test.concurrent('brings files in once, and tells what it skipped and why', async () => {
    await addUser(database.db, 'a@import.example')
    const good = join(program.directory, 'good.eml')
    writeFileSync(good, 'Subject: good\n\nbody\n')
    const run = (...args: string[]) => program.run(['import', 'A@import.example', ...args])
    expect(await run(good)).toEqual({
      status: 0,
      stdout: 'imported 1 message, 0 were in already, 0 skipped\n',
      stderr: '',
    })
    expect((await run(good)).stdout).toBe('imported 0 messages, 1 were in already, 0 skipped\n')
    const { stdout } = await program.run(['message', 'show', 'a@import.example', '1'])
    expect(stdout).toBe('Subject: good\r\n\r\nbody\r\n')
  })

  test.concurrent('to nobody, or from nothing, is refused in one line', async () => {
    const file = join(program.directory, 'x.eml')
    writeFileSync(file, 'Subject: x\n\n')
    for (const args of [
      ['none@import.example', file],
      ['a@import.example', join(program.directory, 'not-there')],
    ]) {
      const { status, stderr } = await program.run(['import', ...args])
      expect(status).toBe(1)
      expect(stderr).toMatch(/^[^\n]+\n$/)
    }
  })
})

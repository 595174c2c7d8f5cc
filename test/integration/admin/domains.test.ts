/** Domains, through the real program. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Domain } from '../../../src/admin/operations/domains.ts'
import { putMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import { putSession, sessionCount } from './rows.ts'

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

describe('domain add', () => {
  test.concurrent('keeps the name in lower case; a second time it is refused in any case', async () => {
    expect(await program.run(['domain', 'add', 'Add.Example'])).toEqual({
      status: 0,
      stdout: 'added add.example\n',
      stderr: '',
    })
    expect(await program.run(['domain', 'add', 'ADD.example'])).toEqual({
      status: 1,
      stdout: '',
      stderr: 'popgres: add.example exists already\n',
    })
  })

  test.concurrent.each(['-a.example', ''])('%j is refused with an example', async (name) => {
    const { status, stderr } = await program.run(['domain', 'add', '--', name])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^popgres: ".*" is not a domain name: [^\n]*example\.com\n$/)
  })
})

test.concurrent('list and show tell what a domain holds', async () => {
  const { domainId, userId } = await addUser(database.db, 'a@list.example')
  await addUser(database.db, 'b@list.example')
  await putMessage(database.db, domainId, [userId], 'Subject: x\r\n\r\n1234567890\r\n')
  const wanted = { name: 'list.example', userCount: 2, messageCount: 1, octets: 26 }
  expect(await program.json<Domain>(['domain', 'show', 'LIST.example'])).toMatchObject(wanted)
  const domains = await program.json<Domain[]>(['domain', 'list'])
  expect(domains.find((domain) => domain.name === 'list.example')).toMatchObject(wanted)
  expect(domains.map((domain) => domain.name)).toEqual(domains.map((domain) => domain.name).sort())
  const { stdout } = await program.run(['domain', 'list'])
  expect(stdout).toMatch(/^list\.example +2 +1 +26 +none +no$/m)
  expect((await program.run(['domain', 'show', 'list.example'])).stdout).toMatch(/^users +2$/m)
})

test.concurrent('suspend ends the sessions of the domain, and only those; resume undoes it', async () => {
  const here = await addUser(database.db, 'a@suspend.example')
  const there = await addUser(database.db, 'a@other.example')
  await putSession(database.db, here)
  await putSession(database.db, there)
  expect((await program.run(['domain', 'suspend', 'suspend.example'])).status).toBe(0)
  expect(await sessionCount(database.db, here)).toBe(0)
  expect(await sessionCount(database.db, there)).toBe(1)
  const show = () => program.json<Domain>(['domain', 'show', 'suspend.example'])
  expect(await show()).toMatchObject({ isSuspended: true })
  expect((await program.run(['domain', 'resume', 'suspend.example'])).status).toBe(0)
  expect(await show()).toMatchObject({ isSuspended: false })
})

describe('domain remove', () => {
  test.concurrent('without a terminal wants --yes and says what is at stake', async () => {
    const { domainId, userId } = await addUser(database.db, 'a@remove.example')
    await putMessage(database.db, domainId, [userId], 'Subject: x\r\n\r\n')
    const asked = await program.run(['domain', 'remove', 'remove.example'])
    expect(asked.status).toBe(1)
    expect(asked.stderr).toMatch(/1 user and 1 message \(14 octets\)[^\n]*--yes[^\n]*\n$/)
    expect((await program.run(['domain', 'show', 'remove.example'])).status).toBe(0)

    const done = await program.run(['domain', 'remove', 'Remove.example', '--yes'])
    expect(done).toMatchObject({ status: 0, stderr: '' })
    const gone = await program.run(['domain', 'show', 'remove.example'])
    expect(gone.status).toBe(1)
    expect(gone.stderr).toBe(
      'popgres: there is no domain remove.example: see "popgres domain list", or add it\n',
    )
    const left = await database.db.kysely
      .selectFrom('bodies')
      .select('body_id')
      .where('domain_id', '=', domainId)
      .execute()
    expect(left).toEqual([])
  })

  test.concurrent.each(['show', 'suspend', 'resume', 'remove'])(
    '%s of none is refused',
    async (verb) => {
      const { status, stderr } = await program.run(['domain', verb, 'none.example'])
      expect(status).toBe(1)
      expect(stderr).toMatch(/^popgres: there is no domain none\.example: [^\n]+\n$/)
    },
  )
})

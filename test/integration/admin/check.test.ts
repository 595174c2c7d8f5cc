/**
 * `popgres check`, through the real program: status and report. What it finds and repairs is in the
 * tests of storage.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CheckReport } from '../../../src/admin/operations/check.ts'
import { putMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

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

async function spoilCounters(domainId: number): Promise<void> {
  await database.db.kysely
    .updateTable('maildrops')
    .set({ message_count: 7 })
    .where('domain_id', '=', domainId)
    .execute()
}

test('nothing wrong: status 0; wrong counters: status 1; repaired: 0 and stays so', async () => {
  const { domainId, userId } = await addUser(database.db, 'a@one.example')
  await addUser(database.db, 'b@two.example')
  await putMessage(database.db, domainId, [userId], 'Subject: x\r\n\r\n')
  const fine = { status: 0, stdout: 'checked 2 domains: nothing is wrong\n', stderr: '' }
  expect(await program.run(['check'])).toEqual(fine)

  await spoilCounters(domainId)
  const found = await program.run(['check'])
  expect(found.status).toBe(1)
  expect(found.stdout).toMatch(/^a@one\.example +counters +no /m)
  expect(found.stdout).toMatch(/^checked 2 domains: 1 finding$/m)
  const other = await program.run(['check', '--domain', 'two.example'])
  expect(other).toMatchObject({ status: 0, stdout: 'checked 1 domain: nothing is wrong\n' })
  const json = await program.run(['check', '--json'])
  expect(json.status).toBe(1)
  const report: CheckReport = JSON.parse(json.stdout)
  expect(report).toEqual({
    domainCount: 2,
    findings: [
      {
        domain: 'one.example',
        address: 'a@one.example',
        kind: 'counters',
        detail: expect.any(String),
        isRepaired: false,
      },
    ],
  })

  const repaired = await program.run(['check', '--repair'])
  expect(repaired.status).toBe(0)
  expect(repaired.stdout).toMatch(/^a@one\.example +counters +yes /m)
  expect(await program.run(['check'])).toEqual(fine)
})

test('what cannot be repaired stays status 1', async () => {
  const { domainId, userId } = await addUser(database.db, 'a@lost.example')
  await putMessage(database.db, domainId, [userId], 'Subject: lost\r\n\r\n')
  await database.db.kysely.deleteFrom('body_chunks').where('domain_id', '=', domainId).execute()
  const { status, stdout } = await program.run(['check', '--repair', '--domain', 'lost.example'])
  expect(status).toBe(1)
  expect(stdout).toMatch(/^a@lost\.example +body-damaged +no /m)
})

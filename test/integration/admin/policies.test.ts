/** LOGIN-DELAY, EXPIRE and second logins as the operator sets them, through the real program. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Policy } from '../../../src/admin/operations/policies.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import { expireMessages } from '../../../src/storage/retention.ts'
import { putMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import type { Ids } from './rows.ts'

const DAY_MS = 86_400_000
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

/** A message that was received so many days ago. */
async function putAged(ids: Ids, days: number): Promise<void> {
  const { db } = database
  const { uids } = await putMessage(db, ids.domainId, [ids.userId], 'Subject: x\r\n\r\nx\r\n')
  await db.kysely
    .updateTable('messages')
    .set({ received_at: new Date(Date.now() - days * DAY_MS) })
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .where('uid', 'in', uids)
    .execute()
}

async function backdateTrash(ids: Ids, days: number): Promise<void> {
  await database.db.kysely
    .updateTable('trash')
    .set({ deleted_at: new Date(Date.now() - days * DAY_MS) })
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .execute()
}

const show = (subject: string) => program.json<Policy>(['policy', 'show', subject])
const set = (...args: string[]) => program.run(['policy', 'set', ...args])

test('help of policy set says how long taking over is waited for', async () => {
  const { stdout } = await program.run(['policy', 'set', '--help'])
  expect(stdout).toMatch(/\(take-over\): it waits up to 15 seconds[^(]*\[IN-USE\]/)
})

describe('policy set', () => {
  test.concurrent('of a domain holds for its users, whose own values go before it', async () => {
    await addUser(database.db, 'ada@set.example')
    await addUser(database.db, 'bob@set.example')
    const done = await set(
      'Set.example',
      '--login-delay=60',
      '--expire-days=30',
      '--second-login=take-over',
    )
    expect(done).toEqual({
      status: 0,
      stdout:
        'login delay   60 seconds\nexpire after  30 days\nsecond login  take-over\n' +
        'trash kept    7 days\n' +
        'aliases       on\ncatch-all     on\nseparator     none\nover quota    defer\n',
      stderr: '',
    })
    await set('ada@set.example', '--expire-days=never', '--login-delay=5')
    const account = (name: string) => selectLoginAccount(database.db, 'set.example', name)
    const common = { secondLogin: 'take-over' }
    expect(await account('bob')).toMatchObject({
      ...common,
      loginDelaySeconds: 60,
      expireDays: 30,
    })
    expect(await account('ada')).toMatchObject({
      ...common,
      loginDelaySeconds: 5,
      expireDays: undefined,
    })
    expect(await show('ada@set.example')).toEqual({
      loginDelaySeconds: 5,
      expireDays: null,
      secondLogin: 'take-over',
      trashDays: 7,
      areAliasesAllowed: true,
      isCatchAllAllowed: true,
      separator: null,
      overQuota: 'defer',
      inherited: [],
    })
    const back = await set('ada@set.example', '--expire-days=inherit')
    expect(back.stdout).toMatch(/^expire after +30 days \(from the domain\)$/m)
    expect(await show('ada@set.example')).toMatchObject({
      expireDays: 30,
      inherited: ['expireDays'],
    })
    expect((await set('set.example', '--expire-days=never')).stdout).toMatch(
      /^expire after +never$/m,
    )
    expect(await account('bob')).toMatchObject({ loginDelaySeconds: 60, expireDays: undefined })
  })

  test.concurrent('says first what goes at once, and wants to be agreed to', async () => {
    const { db } = database
    const old = await addUser(db, 'old@loss.example')
    const own = await addUser(db, 'own@loss.example')
    const held = await addUser(db, 'held@loss.example')
    for (const days of [1, 29, 31, 800]) {
      await putAged(old, days)
      await putAged(own, days)
    }
    await putAged(held, 800)
    await set('own@loss.example', '--expire-days=never')
    await program.run(['hold', 'set', 'held@loss.example', '--reason', 'case 9'])

    const asked = await set('loss.example', '--expire-days=30', '--trash-days=1')
    expect(asked).toMatchObject({ status: 1, stdout: '' })
    expect(asked.stderr).toBe(
      'popgres: 2 of 9 messages of loss.example are older than 30 days: moved to the trash within ' +
        '90 minutes, and out of it for good 1 day later. Nothing was changed: add --yes to go ahead\n',
    )
    expect(await show('loss.example')).toMatchObject({ expireDays: null, trashDays: 7 })

    const done = await set('loss.example', '--expire-days=30', '--trash-days=1', '--yes')
    expect(done.status).toBe(0)
    expect(done.stdout).toMatch(/^expire after +30 days$/m)
    expect(done.stderr).toMatch(/^2 of 9 messages of loss.example are older than 30 days: /)
    // What was announced is what happens.
    expect(await expireMessages(db, old.domainId, 100)).toBe(2)
    await backdateTrash(old, 3)

    const trash = await set('loss.example', '--trash-days=2')
    expect(trash.stderr).toContain(
      '2 of 2 messages in the trash of loss.example are there for 2 days or longer: gone for good',
    )
    const none = await set('loss.example', '--trash-days=4', '--expire-days=900')
    expect(none).toMatchObject({ status: 0 })
    expect(none.stderr).toBe(
      'None of 7 messages of loss.example is older than 900 days.\n' +
        'None of 2 messages in the trash of loss.example is there for 4 days or longer.\n',
    )
  })

  test.concurrent('of a user is about that user alone', async () => {
    const [ada, bob] = await Promise.all(
      ['ada@alone.example', 'bob@alone.example'].map((name) => addUser(database.db, name)),
    )
    for (const user of [ada, bob]) if (user) await putAged(user, 40)
    const asked = await set('ada@alone.example', '--expire-days=30')
    expect(asked.stderr).toContain('1 of 1 message of ada@alone.example is older than 30 days')
    expect((await set('alone.example', '--expire-days=39', '--yes')).status).toBe(0)
    expect((await set('ada@alone.example', '--expire-days=never')).stderr).toBe('')
    const back = await set('ada@alone.example', '--expire-days=inherit')
    expect(back.stderr).toContain('1 of 1 message of ada@alone.example is older than 39 days')
    const { stdout } = await program.run(['policy', 'show', 'ada@alone.example'])
    expect(stdout.split('\n').filter((line) => line.endsWith(' (from the domain)'))).toHaveLength(7)
  })

  test.concurrent.each([
    [['refuse.example'], 1, '"popgres policy set --help"'],
    [['refuse.example', '--login-delay=86401'], 1, '0 to 86400 seconds'],
    [['refuse.example', '--expire-days=0'], 1, '1 to 36500 days'],
    [['refuse.example', '--expire-days=inherit'], 1, 'only users inherit'],
    [['ada@refuse.example', '--login-delay=99999'], 1, '0 to 86400 seconds'],
    [['ada@refuse.example', '--expire-days=99999'], 1, '1 to 36500 days'],
    [['ada@refuse.example', '--second-login=wait'], 1, 'for a whole domain'],
    [['nobody@refuse.example', '--login-delay=1'], 1, 'nobody@refuse.example'],
    [['none.example', '--login-delay=1'], 1, 'there is no domain none.example'],
    [['refuse.example', '--login-delay=soon'], 2, 'number of seconds'],
    [['refuse.example', '--expire-days=-1'], 2, 'number of days'],
    [['refuse.example', '--second-login=both'], 2, 'take-over'],
    [['refuse.example', '--separator=++'], 1, 'one of + - = _ # ~ %'],
    [['refuse.example', '--aliases=maybe'], 2, 'on, off'],
    [['refuse.example', '--over-quota=bounce'], 2, 'defer, refuse'],
    [['ada@refuse.example', '--separator=+'], 1, 'for a whole domain'],
    [['ada@refuse.example', '--catch-all=off'], 1, 'for a whole domain'],
  ])('%j is refused', async (args, status, words) => {
    await addUser(database.db, `ada@refuse.example`).catch(() => undefined)
    const outcome = await set(...args)
    expect(outcome).toMatchObject({ status, stdout: '' })
    expect(outcome.stderr).toMatch(/^popgres: [^\n]*\n$/)
    expect(outcome.stderr).toContain(words)
  })
})

/** LOGIN-DELAY, EXPIRE and second logins as the operator sets them, through the real program. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Policy } from '../../../src/admin/operations/policies.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
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

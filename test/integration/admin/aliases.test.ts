/** Aliases, domains that stand for others, and quotas as the operator sets them, by the real program. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Alias, addAlias, type DomainAlias } from '../../../src/admin/operations/aliases.ts'
import type { Domain } from '../../../src/admin/operations/domains.ts'
import type { User } from '../../../src/admin/operations/users.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { putMessage } from '../../support/mail.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  await addUser(database.db, 'ada@no.example')
  await addUser(database.db, 'eve@no.example')
  await addAlias(database.db, 'team@no.example', ['eve@no.example'])
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

const done = (stdout: string) => ({ status: 0, stdout, stderr: '' })
const recipients = async (address: string): Promise<string[]> => {
  const [localPart = '', domainName = ''] = address.split('@')
  const found = await selectRecipients(database.db, domainName, localPart)
  return found.map((each) => `${each.localPart}@${each.domainName}`)
}

describe('alias', () => {
  test.concurrent('add, list and remove, in whatever case and script', async () => {
    await addUser(database.db, 'ada@alias.example')
    await addUser(database.db, 'bob@xn--bcher-kva.example')
    const run = (...args: string[]) => program.run(['alias', ...args])
    expect(
      await run('add', 'Sales@Alias.example', 'ada@alias.example', 'bob@Bücher.example'),
    ).toEqual(done('added sales@alias.example: ada@alias.example, bob@Bücher.example\n'))
    expect(await recipients('sales@alias.example')).toEqual([
      'ada@alias.example',
      'bob@xn--bcher-kva.example',
    ])
    expect(await run('add', '@alias.example', 'ada@alias.example')).toMatchObject({ status: 0 })
    expect(await recipients('anybody@alias.example')).toEqual(['ada@alias.example'])
    expect((await run('list', 'alias.example')).stdout).toBe(
      'ALIAS                HIDDEN  USERS\n' +
        '@alias.example       no      ada@alias.example\n' +
        'sales@alias.example  no      ada@alias.example bob@xn--bcher-kva.example\n',
    )
    expect(await program.json<Alias[]>(['alias', 'list', 'SALES@alias.example'])).toEqual([
      {
        address: 'sales@alias.example',
        targets: ['ada@alias.example', 'bob@xn--bcher-kva.example'],
        isHidden: false,
      },
    ])
    await addUser(database.db, 'sales@alias.example')
    expect(await program.json<Alias[]>(['alias', 'list', 'sales@alias.example'])).toMatchObject([
      { isHidden: true },
    ])
    expect(await run('remove', 'sales@alias.example', 'ada@alias.example')).toEqual(
      done('removed 1 user from sales@alias.example\n'),
    )
    expect(await run('remove', 'sales@alias.example')).toMatchObject({ status: 0 })
    expect(await run('remove', '@alias.example')).toMatchObject({ status: 0 })
    expect(await program.json(['alias', 'list', 'alias.example'])).toEqual([])
  })

  test.concurrent('several targets are added all or none', async () => {
    await addUser(database.db, 'ada@all.example')
    const outcome = await program.run(
      'alias add x@all.example ada@all.example no@all.example'.split(' '),
    )
    expect(outcome.status).toBe(1)
    expect(await recipients('x@all.example')).toEqual([])
  })

  test.concurrent.each([
    [
      ['add', 'x@no.example', 'y@gmail.example'],
      1,
      'y@gmail.example is not of this server, and mail',
    ],
    [['add', 'x@no.example', 'x@no.example'], 1, 'there is no user with the address x@no.example'],
    [['add', 'x@no.example', 'team@no.example'], 1, 'is an alias itself: name the users'],
    [['add', 'eve@no.example', 'eve@no.example'], 1, 'is a user, who comes before'],
    [['add', 'team@no.example', 'eve@no.example'], 1, 'stands for this user already'],
    [['add', 'x@none.example', 'eve@no.example'], 1, 'there is no domain none.example'],
    [['add', 'a b@no.example', 'eve@no.example'], 1, 'is not an address'],
    [['add', 'x', 'eve@no.example'], 1, 'has no domain'],
    [['add', 'x@no.example', '@no.example'], 1, 'is not an address'],
    [['add', 'x@no.example'], 2, "missing required argument 'user'"],
    [['remove', 'x@no.example'], 1, 'there is no alias x@no.example'],
    [['remove', 'team@no.example', 'ada@no.example'], 1, 'team@no.example does not stand for ada'],
    [['remove', 'team@no.example', 'nobody@no.example'], 1, 'there is no user'],
    [['list', 'none.example'], 1, 'there is no domain none.example'],
  ])('%j is refused in one line', async (args, status, words) => {
    const outcome = await program.run(['alias', ...args])
    expect(outcome).toMatchObject({ status, stdout: '' })
    expect(outcome.stderr).toMatch(/^popgres: [^\n]*\n$/)
    expect(outcome.stderr).toContain(words)
    expect(outcome.stderr).not.toContain('the database refused')
  })
})

describe('domain alias', () => {
  test.concurrent('add makes the domain; list, show and remove', async () => {
    await addUser(database.db, 'ada@main.example')
    const run = (...args: string[]) => program.run(['domain', 'alias', ...args])
    expect(await run('add', 'Other.example', 'main.example')).toEqual(
      done('other.example stands for main.example\n'),
    )
    expect(await recipients('ada@other.example')).toEqual(['ada@main.example'])
    expect(await program.json<DomainAlias[]>(['domain', 'alias', 'list'])).toContainEqual({
      domain: 'other.example',
      standsFor: 'main.example',
    })
    expect((await program.run(['domain', 'show', 'other.example'])).stdout).toMatch(
      /^stands for +main.example$/m,
    )
    const chain = await run('add', 'third.example', 'other.example')
    expect(chain.stderr).toMatch(/^popgres: other.example stands for main.example: [^\n]*\n$/)
    expect((await run('add', 'main.example', 'third.example')).status).toBe(1)
    const { domain } = await program
      .json<{ domain: string }[]>(['domain', 'list'])
      .then((domains) => ({
        domain: domains.find((each) => Object(each).name === 'third.example'),
      }))
    expect(domain, 'a refused one makes no domain').toBeUndefined()
    await addDomain(database.db, 'third.example')
    const back = await run('add', 'main.example', 'third.example')
    expect(back.stderr).toMatch(/^popgres: another domain stands for main.example/)
    const busy = await program.run(['domain', 'remove', 'main.example', '--yes'])
    expect(busy.stderr).toMatch(/^popgres: [^\n]*another one stands for[^\n]*domain alias list"\n$/)
    expect(await run('remove', 'other.example')).toMatchObject({ status: 0 })
    expect(await recipients('ada@other.example')).toEqual([])
    expect((await run('remove', 'other.example')).stderr).toContain('stands for no other domain')
  })
})

describe('separator', () => {
  test.concurrent('is set and taken away by policy', async () => {
    await addUser(database.db, 'ada@sep.example')
    const set = (...args: string[]) => program.run(['policy', 'set', 'sep.example', ...args])
    expect((await set('--separator=+')).stdout).toMatch(/^separator +\+$/m)
    expect(await recipients('ada+x@sep.example')).toEqual(['ada@sep.example'])
    await set('--separator=none')
    expect(await recipients('ada+x@sep.example')).toEqual([])
    await program.run(['alias', 'add', '@sep.example', 'ada@sep.example'])
    expect((await set('--catch-all=off', '--aliases=off')).stdout).toMatch(/^catch-all +off$/m)
    expect(await recipients('x@sep.example')).toEqual([])
    await set('--catch-all=on', '--over-quota=refuse')
    expect(await selectRecipients(database.db, 'sep.example', 'x')).toMatchObject([
      { isRefusedWhenFull: true },
    ])
  })
})

describe('quota', () => {
  test.concurrent('of a user, in octets and messages; what is in the trash is apart', async () => {
    const { domainId, userId } = await addUser(database.db, 'ada@quota.example')
    for (const text of ['1', '22', '333']) await putMessage(database.db, domainId, [userId], text)
    await program.run(['message', 'delete', 'ada@quota.example', '1', '2', '--yes'])
    const quota = (...args: string[]) =>
      program.run(['user', 'quota', 'ada@quota.example', ...args])
    expect(await quota('2G', '--messages', '10')).toEqual(
      done('quota of ada@quota.example: 2.0G, 10 messages\n'),
    )
    expect(await quota('none')).toEqual(done('quota of ada@quota.example: 10 messages\n'))
    expect(await program.json<User>(['user', 'show', 'ada@quota.example'])).toMatchObject({
      ...{ quotaOctets: null, quotaMessages: 10 },
      ...{ messageCount: 1, octets: 3, trashCount: 2, trashOctets: 3 },
    })
    expect((await program.run(['user', 'show', 'ada@quota.example'])).stdout).toMatch(
      /^in trash +2 messages \(3\)$/m,
    )
    expect(await quota('none', '--messages=none')).toEqual(
      done('quota of ada@quota.example: no limit\n'),
    )
    expect((await quota('1G', '--messages=many')).status).toBe(2)
  })

  test.concurrent('of a domain: set, shown, lifted', async () => {
    const { domainId, userId } = await addUser(database.db, 'ada@room.example')
    await putMessage(database.db, domainId, [userId], 'hello')
    const quota = (...args: string[]) => program.run(['domain', 'quota', 'room.example', ...args])
    expect(await quota('5', '--messages=7')).toMatchObject({ status: 0 })
    expect(await program.json<Domain>(['domain', 'show', 'room.example'])).toMatchObject({
      octets: 5,
      trashOctets: 0,
      quotaOctets: 5,
      quotaMessages: 7,
    })
    expect((await program.run(['domain', 'list'])).stdout).toMatch(
      /^room.example .* 5, 7 messages +no$/m,
    )
    expect(await selectRecipients(database.db, 'room.example', 'ada')).toMatchObject([
      { isOverQuota: true },
    ])
    expect(await quota('none')).toEqual(done('quota of room.example: 7 messages\n'))
    expect(await quota('none', '--messages=none')).toEqual(
      done('quota of room.example: no limit\n'),
    )
    expect((await program.run(['domain', 'quota', 'none.example', '1G'])).status).toBe(1)
  })
})

/**
 * An address is looked up by the id that its domain had when it was last asked for. What has become of
 * the domain since is seen by the look-up itself, and who is unknown costs what who is known does.
 */
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { LOGIN_ACCOUNT, lookUpLogin, selectLoginAccount } from '../../../src/storage/accounts.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { askByName } from '../../../src/storage/tenants/domain-ids.ts'
import { type AwayDomains, prepareAwayDomains } from '../../support/away-domains.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { servingUrl } from '../../support/postgres-setup.ts'
import { questionOf } from './fixtures.ts'

let database: TestDatabase
let node: Database
let domains: AwayDomains

beforeAll(async () => {
  database = await openTestDatabase()
  node = openTestConnection(servingUrl(database.url))
  domains = await prepareAwayDomains(database.db)
})
afterAll(async () => {
  await node.close()
  await database.close()
})
beforeEach(() => node.domainIds.clear())

const idOf = async (name: string) => (await selectLoginAccount(node, name, 'ada'))?.domainId

function rename(from: string, to: string): Promise<unknown> {
  const { kysely } = database.db
  return kysely.updateTable('domains').set({ name: to }).where('name', '=', from).execute()
}

async function statementsOf(address: string): Promise<number> {
  const hot = vi.spyOn(node, 'hot')
  try {
    await lookUpLogin(node, questionOf(address))
    expect(hot.mock.calls.every(([statement]) => statement === LOGIN_ACCOUNT)).toBe(true)
    return hot.mock.calls.length
  } finally {
    hot.mockRestore()
  }
}

test('one statement, for a user who is known, unknown, or of an unknown domain', async () => {
  await addUser(database.db, 'ada@first.test')
  expect(await statementsOf('ada@first.test')).toBe(2)
  expect(await statementsOf('ada@first.test')).toBe(1)
  expect(await statementsOf('bob@first.test')).toBe(1)
  expect(await statementsOf('ada@unknown.test')).toBe(1)
  expect(await statementsOf('ada@unknown.test')).toBe(1)
})

test('a domain that is renamed is known by its new name at once, and by its old no more', async () => {
  const { domainId } = await addUser(database.db, 'ada@old.test')
  expect(await idOf('old.test')).toBe(domainId)
  await rename('old.test', 'new.test')
  expect(await idOf('old.test')).toBeUndefined()
  expect(await idOf('new.test')).toBe(domainId)
})

test('names that change places are those of the other domain at once', async () => {
  const one = await addUser(database.db, 'ada@one.test')
  const two = await addUser(database.db, 'ada@two.test')
  expect([await idOf('one.test'), await idOf('two.test')]).toEqual([one.domainId, two.domainId])
  await rename('one.test', 'between.test')
  await rename('two.test', 'one.test')
  await rename('between.test', 'two.test')
  expect([await idOf('one.test'), await idOf('two.test')]).toEqual([two.domainId, one.domainId])
})

test('a domain that is removed is gone at once, and one of its name is another', async () => {
  const { domainId } = await addUser(database.db, 'ada@again.test')
  expect(await idOf('again.test')).toBe(domainId)
  const { kysely } = database.db
  await kysely.deleteFrom('users').where('domain_id', '=', domainId).execute()
  await kysely.deleteFrom('domains').where('domain_id', '=', domainId).execute()
  expect(await idOf('again.test')).toBeUndefined()
  const added = await addUser(database.db, 'ada@again.test')
  expect(added.domainId).not.toBe(domainId)
  expect(await idOf('again.test')).toBe(added.domainId)
})

test('a name whose domain was held by a server that is away is asked for anew', async () => {
  const [before, after] = [71, 72]
  node.domainIds.set('moved.test', before)
  await domains.take(before)
  const ask = async (domainId: number | undefined) => {
    await node.hot({ name: 'is-here', text: 'select is_here($1)' }, [domainId ?? null])
    return { domainId: after }
  }
  const asked = askByName(node, 'moved.test', ask)
  await expect(asked).rejects.toMatchObject({ code: 'STORAGE_IN_DOUBT' })
  expect(await askByName(node, 'moved.test', ask)).toEqual({ domainId: after })
})

test('what is remembered is bounded', () => {
  expect(node.domainIds.max).toBe(20_000)
})

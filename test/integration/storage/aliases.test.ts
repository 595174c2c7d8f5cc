/**
 * What no alias may be, by the functions that the program calls too and by bare SQL: loops and chains
 * cannot be made, whoever comes at one time.
 */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { constraintOf, sqlStateOf } from '../../../src/storage/postgres/sqlstate.ts'
import { selectAliases } from '../../../src/storage/tenants/aliases.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { Holder, waitingFor } from './fixtures.ts'

let database: TestDatabase
let db: Database
/** Of domains that each test has for itself. */
let one: string
let two: string
let three: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
})
afterAll(() => database.close())

beforeEach(async () => {
  const id = randomUUID()
  one = `one-${id}.test`
  two = `two-${id}.test`
  three = `three-${id}.test`
  for (const name of [one, two, three]) await addDomain(db, name)
  await addUser(db, `Alice@${one}`)
  await addUser(db, `bob@${two}`)
})

const addAlias = (address: string, target: string) =>
  sql`select add_alias(${address}, ${target})`.execute(db.kysely)
const standFor = (name: string, other: string | null) =>
  sql`select set_domain_alias(${name}, ${other})`.execute(db.kysely)
const refusalOf = (attempt: Promise<unknown>) =>
  attempt.then(
    () => 'not refused',
    (error: unknown) => `${sqlStateOf(error)} ${(error as Error).message}`,
  )
const idOf = async (name: string): Promise<number> =>
  (
    await db.kysely
      .selectFrom('domains')
      .select('domain_id')
      .where('name', '=', name)
      .executeTakeFirstOrThrow()
  ).domain_id
const targetsOf = async (domain: string) =>
  (await selectAliases(db, await idOf(domain))).map(({ address, target }) => [address, target])

describe('add_alias', () => {
  test('takes any case, and more targets one after the other', async () => {
    await addAlias(`Sales@${one.toUpperCase()}`, `ALICE@${one}`)
    await addAlias(`sales@${one}`, `bob@${two.toUpperCase()}`)
    await addAlias(`@${one}`, `bob@${two}`)
    expect(await targetsOf(one)).toEqual([
      [`@${one}`, `bob@${two}`],
      [`sales@${one}`, `Alice@${one}`],
      [`sales@${one}`, `bob@${two}`],
    ])
  })

  test('refuses what leads nowhere or in circles, and says why', async () => {
    await addAlias(`sales@${one}`, `alice@${one}`)
    await standFor(three, one)
    const refused: [string, string, RegExp][] = [
      [`x@${one}`, 'someone@elsewhere.example', /^P0002 .*mail is not sent on/],
      [`x@${one}`, `nobody@${one}`, /^P0002 .*there is no user with the address nobody@/],
      [`x@${one}`, `sales@${one}`, /^42809 .*is an alias itself: name the users/],
      [`sales@${one}`, `sales@${one}`, /^42809 .*is an alias itself/],
      [`x@${one}`, `alice@${three}`, /^42809 .*stands for one-.*: name the address there/],
      [`x@${three}`, `alice@${one}`, /^42809 .*stands for one-.*: name the address there/],
      [`alice@${one}`, `bob@${two}`, /^42710 .*is a user, who comes before/],
      [`alice@${one}`, `alice@${one}`, /^42710 .*is a user/],
      ['x@none.example', `alice@${one}`, /^P0002 .*there is no domain none.example/],
      [`x@${one}`, `@${one}`, /^22023 .*is written/],
      [`x@${one}`, 'alice', /^22023 .*is written/],
      [one, `alice@${one}`, /^22023 .*is written/],
      [`sales@${one}`, `alice@${one}`, /^23505 /],
      [`a b@${one}`, `alice@${one}`, /^23514 /],
    ]
    for (const [address, target, words] of refused)
      expect(await refusalOf(addAlias(address, target)), `${address} → ${target}`).toMatch(words)
    expect(await targetsOf(one)).toEqual([[`sales@${one}`, `Alice@${one}`]])
  })

  test('100 targets, not 101; several at once take places of their own', async () => {
    const { domainId } = await addUser(db, `u0@${two}`)
    await sql`insert into users (domain_id, local_part)
      select ${domainId}, 'u' || n from generate_series(1, 100) n`.execute(db.kysely)
    await Promise.all(Array.from({ length: 16 }, (_, i) => addAlias(`many@${one}`, `u${i}@${two}`)))
    await sql`select add_alias(${`many@${one}`}, ${'u'} || n || ${`@${two}`})
      from generate_series(16, 99) n`.execute(db.kysely)
    expect(await refusalOf(addAlias(`many@${one}`, `u100@${two}`))).toMatch(/^54000 .*100 users/)
    await sql`select remove_alias(${`many@${one}`}, ${`u7@${two}`})`.execute(db.kysely)
    await addAlias(`many@${one}`, `u100@${two}`)
    expect(await targetsOf(one)).toHaveLength(100)
  })
})

describe('bare SQL', () => {
  const insert = async (localPart: string, position: number) => {
    const domainId = await idOf(one)
    return db.kysely
      .insertInto('aliases')
      .values({
        domain_id: domainId,
        local_part: localPart,
        position,
        target_domain_id: domainId,
        target_user_id: 1,
      })
      .execute()
  }
  const constraint = (attempt: Promise<unknown>) => attempt.then(() => undefined, constraintOf)

  test('constraints keep aliases in lower case and few targets', async () => {
    await insert('', 1)
    expect(await constraint(insert('Sales', 1))).toBe('aliases_local_part_is_lower_case_dot_atom')
    expect(await constraint(insert('a..b', 1))).toBe('aliases_local_part_is_lower_case_dot_atom')
    expect(await constraint(insert('sales', 101))).toBe('aliases_has_at_most_100_targets')
    expect(await constraint(insert('', 1))).toBe('aliases_pkey')
    expect(await constraint(insert('', 2))).toBe('aliases_target_key')
  })

  test('a domain stands for itself or for one that does: from either side', async () => {
    const set = async (name: string, other: string) =>
      sql`update domains set alias_of = ${await idOf(other)} where name = ${name}`.execute(
        db.kysely,
      )
    expect(await constraint(set(one, one))).toBe('domains_alias_of_is_no_alias')
    await set(two, one)
    expect(await constraint(set(three, two))).toBe('domains_alias_of_is_no_alias')
    expect(await constraint(set(one, three))).toBe('domains_alias_of_is_no_alias')
    expect(await constraint(set(one, two))).toBe('domains_alias_of_is_no_alias')
    await set(three, one)
    expect(await refusalOf(sql`select remove_domain(${one})`.execute(db.kysely))).toMatch(/^23503/)
  })

  test('two who make a circle at one time: one of them is refused', async () => {
    const [first, second, observer] = [
      await Holder.open(database.url),
      await Holder.open(database.url),
      await Holder.open(database.url),
    ]
    await first.begin()
    await first.query('select set_domain_alias($1, $2)', [one, two])
    const other = second.query('select set_domain_alias($1, $2)', [two, three]).then(
      () => 'not refused',
      (error: { constraint?: string }) => error.constraint,
    )
    await waitingFor(observer, first.pid)
    await first.commit()
    expect(await other).toBe('domains_alias_of_is_no_alias')
    for (const holder of [first, second, observer]) await holder.close()
  })
})

describe('set_domain_alias', () => {
  test('refuses chains, itself and what has aliases, and says why', async () => {
    await standFor(two, one)
    expect(await refusalOf(standFor(three, two))).toMatch(/^42809 .*stands for one-/)
    expect(await refusalOf(standFor(one, three))).toMatch(/^42809 .*another domain stands for one-/)
    expect(await refusalOf(standFor(one, one))).toMatch(/^42809 .*cannot stand for itself/)
    expect(await refusalOf(standFor('none.example', one))).toMatch(/^P0002/)
    expect(await refusalOf(standFor(three, 'none.example'))).toMatch(/^P0002/)
    await addAlias(`x@${three}`, `alice@${one}`)
    expect(await refusalOf(standFor(three, one))).toMatch(/^42809 .*has aliases/)
    await standFor(two, null)
    await standFor(two, null)
  })
})

describe('what is removed', () => {
  test('takes its aliases along: a user, a domain with aliases, a domain of targets', async () => {
    await addUser(db, `carl@${three}`)
    for (const target of [`alice@${one}`, `bob@${two}`, `carl@${three}`])
      await addAlias(`all@${one}`, target)
    await sql`select remove_user(${`bob@${two}`})`.execute(db.kysely)
    await sql`select remove_domain(${three})`.execute(db.kysely)
    const left = await sql`select from aliases where domain_id = ${await idOf(one)}`.execute(
      db.kysely,
    )
    expect(left.rows).toHaveLength(1)
    expect(await targetsOf(one)).toEqual([[`all@${one}`, `Alice@${one}`]])
    await sql`select remove_domain(${one})`.execute(db.kysely)
  })

  test('remove_alias tells how many targets went', async () => {
    const removed = async (address: string, target: string | null) => {
      const { rows } = await sql<{ n: number }>`
        select remove_alias(${address}, ${target}) as n`.execute(db.kysely)
      return rows[0]?.n
    }
    for (const target of [`alice@${one}`, `bob@${two}`]) await addAlias(`all@${one}`, target)
    expect(await removed(`ALL@${one}`, `bob@${two}`)).toBe(1)
    expect(await removed(`all@${one}`, `bob@${two}`)).toBe(0)
    expect(await removed(`all@${one}`, null)).toBe(1)
    expect(await removed(`all@${one}`, null)).toBe(0)
    expect(await refusalOf(removed(`all@${one}`, `no@${two}`))).toMatch(/^P0002/)
  })
})

/** Who is made at a first login, and who is not: an address that is somebody's already stays theirs. */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { addDomain, addUser } from '../../support/postgres.ts'
import { MovingWorld, PASSWORD, type Setting, tryLogin, withMail } from './setting.ts'

let world: MovingWorld

beforeAll(async () => {
  world = await MovingWorld.open()
})
afterEach(() => world.clear())
afterAll(() => world.database.close())

const NAMES = ['sales', 'alice+tag', 'sales+tag', 'nobody+tag', 'new']

async function migrate(): Promise<Setting> {
  const users = Object.fromEntries(NAMES.map((name) => [name, withMail(1)]))
  const setting = await world.migrate({ users }, {}, { userFormat: 'local' })
  const { domain, domainId } = setting
  const { db } = world.database
  for (const name of ['alice', 'bob', 'carol']) await addUser(db, `${name}@${domain}`)
  await sql`select add_alias(${`sales@${domain}`}, ${`bob@${domain}`}),
    add_alias(${`sales@${domain}`}, ${`carol@${domain}`})`.execute(db.kysely)
  const change = { separator: '+' }
  await db.kysely.updateTable('domains').set(change).where('domain_id', '=', domainId).execute()
  return setting
}

async function namedBy({ domain }: Setting, localPart: string): Promise<string[]> {
  const found = await selectRecipients(world.database.db, domain, localPart)
  return found.map((recipient) => recipient.localPart)
}

test.each([
  ['sales', 'an alias', ['bob', 'carol']],
  ['alice+tag', 'a tagged address', ['alice']],
  ['sales+tag', 'an alias with a tag', ['bob', 'carol']],
])('%s is %s: the login is refused, and the address names whom it named', async (name, _, who) => {
  const setting = await migrate()
  expect(await namedBy(setting, name)).toEqual(who)
  const { node, domain } = setting
  expect(await tryLogin(node, `${name}@${domain}`, PASSWORD)).toMatch(/^-ERR \[AUTH\]/)
  await node.untilLogged('no user is made of it')
  expect(await namedBy(setting, name)).toEqual(who)
})

test.each(['nobody+tag', 'new'])(
  '%s is made beside a catch-all, which names nobody in particular',
  async (name) => {
    const setting = await migrate()
    const { node, domain } = setting
    await sql`select add_alias(${`@${domain}`}, ${`bob@${domain}`})`.execute(
      world.database.db.kysely,
    )
    expect(await tryLogin(node, `${name}@${domain}`, PASSWORD)).toMatch(/^\+OK/)
    expect(await namedBy(setting, name)).toEqual([name])
  },
)

test('a domain that stands for another makes nobody who is there', async () => {
  const { db } = world.database
  const setting = await world.migrate(
    { users: { bob: withMail(1), new: withMail(1) } },
    {},
    { userFormat: 'local' },
  )
  const { node, domain } = setting
  await addDomain(db, 'own.test')
  await addUser(db, 'bob@own.test')
  await sql`select set_domain_alias(${domain}, 'own.test')`.execute(db.kysely)
  expect(await tryLogin(node, `bob@${domain}`, PASSWORD)).toMatch(/^-ERR \[AUTH\]/)
  expect(await tryLogin(node, `new@${domain}`, PASSWORD)).toMatch(/^\+OK/)
})

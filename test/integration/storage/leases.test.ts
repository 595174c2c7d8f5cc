import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  existsApopUser,
  type LoginAccount,
  selectLoginAccount,
  updatePasswordHash,
} from '../../../src/storage/accounts.ts'
import {
  acquireLease,
  commitDeletes,
  releaseLease,
  resolveCommit,
} from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import {
  acquire,
  addNode,
  countersOf,
  deliverTo,
  Holder,
  questionOf,
  type User,
  uidsOf,
  waitingFor,
} from './fixtures.ts'

const HASH_A = `$2b$10$${'a'.repeat(53)}`
const HASH_B = `$2b$10$${'b'.repeat(53)}`

let database: TestDatabase
let db: Database
let nodeId: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
  nodeId = await addNode(db)
})

afterAll(() => database.close())

const setUser = (user: User, set: { password_hash?: string; suspended?: boolean }) =>
  db.kysely
    .updateTable('users')
    .set(set)
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()

const requestOf = (user: User, account: LoginAccount | undefined) => ({
  ...user,
  sessionId: randomUUID(),
  nodeId,
  deadNodeIds: [],
  fingerprint: account?.fingerprint ?? '',
  credentialId: undefined,
  client: '192.0.2.1',
})

describe('an account', () => {
  test('is found in any case, and changes its fingerprint with each credential', async () => {
    const user = await addUser(db, 'Ada.Lovelace@accounts.test')
    const find = () => selectLoginAccount(db, 'ACCOUNTS.Test', 'aDA.lovelACE')
    const seen = [await find()]
    expect(seen[0]).toMatchObject({
      ...user,
      domainName: 'accounts.test',
      localPart: 'Ada.Lovelace',
      passwordHash: undefined,
      apopSecret: undefined,
      isSuspended: false,
    })
    await setUser(user, { password_hash: HASH_A })
    seen.push(await find())
    expect(await existsApopUser(db)).toBe(false)
    await db.kysely
      .updateTable('users')
      .set({ apop_secret: Buffer.from([0xff, 0]) })
      .where('domain_id', '=', user.domainId)
      .execute()
    seen.push(await find())
    expect(await existsApopUser(db)).toBe(true)
    expect(seen[2]).toMatchObject({ passwordHash: HASH_A, apopSecret: Buffer.from([0xff, 0]) })
    expect(new Set(seen.map((account) => account?.fingerprint)).size).toBe(3)
    await setUser(user, { suspended: true })
    expect(await find()).toMatchObject({ isSuspended: true, fingerprint: seen[2]?.fingerprint })
  })

  test('of a suspended domain is suspended', async () => {
    const user = await addUser(db, 'ada@closed.test')
    await db.kysely
      .updateTable('domains')
      .set({ suspended: true })
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(await selectLoginAccount(db, 'closed.test', 'ada')).toMatchObject({ isSuspended: true })
  })

  test.each(['nobody', '', 'ada\0', "' or 1=1 --", 'x'.repeat(5_000), '\u{1F4EE}'])(
    'is not found as %j',
    async (localPart) => {
      const domainName = `${randomUUID()}.test`
      await addUser(db, `ada@${domainName}`)
      expect(await selectLoginAccount(db, domainName, localPart)).toBeUndefined()
      expect(await selectLoginAccount(db, localPart, 'ada')).toBeUndefined()
    },
  )

  test('takes a new hash only in the place of the one that was verified', async () => {
    const { domainId, userId } = await addUser(db, 'ada@rehash.test')
    await setUser({ domainId, userId }, { password_hash: HASH_A })
    expect(await updatePasswordHash(db, domainId, userId, HASH_B, HASH_B)).toBeUndefined()
    const fingerprint = await updatePasswordHash(db, domainId, userId, HASH_A, HASH_B)
    expect(await selectLoginAccount(db, 'rehash.test', 'ada')).toMatchObject({
      passwordHash: HASH_B,
      fingerprint,
    })
  })
})

describe('the lease', () => {
  test('of a user who never had mail makes the maildrop', async () => {
    await addUser(db, 'new@lease.test')
    const { lease, outcome } = await acquire(db, 'new@lease.test', nodeId)
    expect(outcome).toMatchObject({
      kind: 'acquired',
      counters: { messageCount: 0, octets: 0, nextUid: 1, hasUniqueIds: false },
    })
    if (outcome.kind === 'acquired') expect(outcome.counters.uidValidity).toBeGreaterThan(1e12)
    expect(await releaseLease(db, lease)).toBe(true)
    expect(await releaseLease(db, lease)).toBe(false)
  })

  test('goes to exactly one of many logins at once, and to the next after it ends', async () => {
    const user = await addUser(db, 'ada@lease.test')
    await deliverTo(db, user, 'hello')
    const logins = await Promise.all(
      Array.from({ length: 8 }, () => acquire(db, 'ada@lease.test', nodeId)),
    )
    const winners = logins.filter(({ outcome }) => outcome.kind === 'acquired')
    expect(winners).toHaveLength(1)
    expect(logins.filter(({ outcome }) => outcome.kind === 'in-use')).toHaveLength(7)
    expect(winners[0]?.outcome).toMatchObject({
      counters: { messageCount: 1, octets: 5, nextUid: 2 },
    })
    for (const { lease } of winners) await releaseLease(db, lease)
    expect((await acquire(db, 'ada@lease.test', nodeId)).outcome.kind).toBe('acquired')
  })

  test('is refused when the credential changed or the user was suspended meanwhile', async () => {
    const user = await addUser(db, 'ada@changed.test')
    const account = await selectLoginAccount(db, 'changed.test', 'ada')
    const request = requestOf(user, account)
    const ask = async () =>
      (await acquireLease(db, request, questionOf('ada@changed.test'))).outcome
    await setUser(user, { password_hash: HASH_A })
    expect(await ask()).toEqual({ kind: 'credential-changed' })
    await setUser(user, { suspended: true })
    expect((await acquire(db, 'ada@changed.test', nodeId)).outcome.kind).toBe('credential-changed')
    await db.kysely.deleteFrom('users').where('domain_id', '=', user.domainId).execute()
    expect(await ask()).toEqual({ kind: 'credential-changed' })
  })

  // Behind a pooler the owner's connections wait for locks without end: see pgbouncer.test.ts.
  test.skipIf(isPooled)('whose row is locked is in use', async () => {
    const user = await addUser(db, 'ada@locked.test')
    await acquire(db, 'ada@locked.test', nodeId)
    const holder = await Holder.open(database.url)
    await holder.begin()
    await holder.query('select from sessions where domain_id = $1 for update', [user.domainId])
    expect((await acquire(db, 'ada@locked.test', nodeId)).outcome).toEqual({ kind: 'in-use' })
    await holder.commit()
    await holder.close()
  })

  const seesWhatIsNew =
    'is waited for while a table is changed, and sees what was committed meanwhile'
  test.skipIf(isPooled)(seesWhatIsNew, async () => {
    const user = await addUser(db, 'ada@changing.test')
    const account = await selectLoginAccount(db, 'changing.test', 'ada')
    const { lease } = await acquire(db, 'ada@changing.test', nodeId)
    const uid = await deliverTo(db, user, 'hello')
    const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
    await holder.begin()
    await holder.query('lock table users')
    const request = requestOf(user, account)
    const asked = acquireLease(db, request, questionOf('ada@changing.test'))
    // The pipeline gives up, and what was sent after it is answered; then the pool waits.
    await waitingFor(observer, holder.pid, await waitingFor(observer, holder.pid))
    await holder.query(
      `with quit as (delete from sessions where session_id = $1),
         gone as (delete from messages where domain_id = $2 and uid = $3)
       update maildrops set message_count = 0, octets = 0 where domain_id = $2`,
      [lease.sessionId, user.domainId, uid],
    )
    await holder.commit()
    expect((await asked).outcome).toMatchObject({ kind: 'acquired', counters: { messageCount: 0 } })
    await Promise.all([holder.close(), observer.close()])
  })

  test('of a dead node is taken over; the old session deletes nothing', async () => {
    const user = await addUser(db, 'ada@dead.test')
    const uid = await deliverTo(db, user, 'mine')
    const deadNodeId = await addNode(db)
    const old = await acquire(db, 'ada@dead.test', deadNodeId)
    expect((await acquire(db, 'ada@dead.test', nodeId)).outcome.kind).toBe('in-use')
    const taken = await acquire(db, 'ada@dead.test', nodeId, [randomUUID(), deadNodeId])
    expect(taken.outcome.kind).toBe('acquired')
    expect(await commitDeletes(db, old.lease, Int32Array.of(uid))).toBe('fenced')
    expect(await releaseLease(db, old.lease)).toBe(false)
    expect(await uidsOf(db, user)).toEqual([uid])
    expect(await commitDeletes(db, taken.lease, Int32Array.of(uid))).toBe('committed')
    expect(await uidsOf(db, user)).toEqual([])
  })
})

describe('QUIT', () => {
  let user: User
  let address: string

  beforeEach(async () => {
    address = `ada@${randomUUID()}.test`
    user = await addUser(db, address)
    for (const text of ['1', '22', '333', '4444', '55555']) await deliverTo(db, user, text)
  })

  test('moves what is marked to the trash, counts, logs and releases', async () => {
    const { lease } = await acquire(db, address, nodeId)
    await deliverTo(db, user, '666666')
    expect(await commitDeletes(db, lease, Int32Array.of(1, 3, 5))).toBe('committed')
    expect(await uidsOf(db, user)).toEqual([2, 4, 6])
    expect(await uidsOf(db, user, 'trash')).toEqual([1, 3, 5])
    expect(await countersOf(db, user)).toEqual({ messages: 3, octets: 12, nextUid: 7 })
    const log = await db.kysely
      .selectFrom('session_log')
      .selectAll()
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(log).toMatchObject([{ session_id: lease.sessionId, deleted: 3 }])
    expect((await acquire(db, address, nodeId)).outcome.kind).toBe('acquired')
    expect(await resolveCommit(db, lease)).toBe('committed')
  })

  test('with nothing marked only releases the lease', async () => {
    const { lease } = await acquire(db, address, nodeId)
    expect(await commitDeletes(db, lease, new Int32Array())).toBe('committed')
    expect(await commitDeletes(db, lease, new Int32Array())).toBe('fenced')
    const log = await db.kysely
      .selectFrom('session_log')
      .selectAll()
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(log).toEqual([])
  })

  test('of a kicked session deletes nothing', async () => {
    const { lease } = await acquire(db, address, nodeId)
    await db.kysely.deleteFrom('sessions').where('domain_id', '=', user.domainId).execute()
    expect(await commitDeletes(db, lease, Int32Array.of(1, 2))).toBe('fenced')
    expect(await resolveCommit(db, lease)).toBe('nothing-deleted')
    expect(await uidsOf(db, user)).toEqual([1, 2, 3, 4, 5])
    expect(await countersOf(db, user)).toMatchObject({ messages: 5, octets: 15 })
  })

  test('passes over what is no longer there', async () => {
    const { lease } = await acquire(db, address, nodeId)
    expect(await commitDeletes(db, lease, Int32Array.of(2, 77))).toBe('committed')
    expect(await countersOf(db, user)).toMatchObject({ messages: 4, octets: 13 })
  })

  test('with more marks than the pipeline should carry', async () => {
    for (let count = 0; count < 250; count++) await deliverTo(db, user, 'x')
    const { lease } = await acquire(db, address, nodeId)
    const uids = Int32Array.from({ length: 255 }, (_, index) => index + 1)
    expect(await commitDeletes(db, lease, uids)).toBe('committed')
    expect(await countersOf(db, user)).toEqual({ messages: 0, octets: 0, nextUid: 256 })
  })

  test('touches only the maildrop of its lease', async () => {
    const other = await addUser(db, `bob@${address.split('@')[1]}`)
    await deliverTo(db, other, 'bob')
    const { lease } = await acquire(db, address, nodeId)
    await commitDeletes(db, lease, Int32Array.of(1))
    expect(await uidsOf(db, other)).toEqual([1])
  })

  test('that has not run when it is asked about never will', async () => {
    const { lease } = await acquire(db, address, nodeId)
    expect(await resolveCommit(db, lease)).toBe('nothing-deleted')
    expect(await commitDeletes(db, lease, Int32Array.of(1))).toBe('fenced')
    expect(await uidsOf(db, user)).toHaveLength(5)
  })
})

/** The replica that other tests fail over to does replicate, and can be promoted. */
import { afterEach, expect, test } from 'vitest'
import {
  type PostgresServer,
  type Replica,
  startPrimary,
  startReplica,
} from '../../support/replica.ts'

let primary: PostgresServer
let replica: Replica | undefined

afterEach(async () => {
  await replica?.stop()
  await primary.stop()
})

test('a synchronous replica has what was committed, refuses writing, and is promoted', async () => {
  primary = await startPrimary()
  await primary.query('create table kept (n integer)')
  replica = await startReplica(primary, { isSynchronous: true })
  await primary.query('insert into kept values (1)')
  await expect(replica.server.query('insert into kept values (2)')).rejects.toMatchObject({
    code: '25006',
  })
  await primary.kill()
  await replica.promote()
  await replica.server.query('insert into kept values (3)')
  expect(await replica.server.query('select n from kept order by n')).toEqual([{ n: 1 }, { n: 3 }])
  await primary.start()
  expect(await primary.query('show in_hot_standby')).toEqual([{ in_hot_standby: 'off' }])
})

/** Live sessions, through the real program and against a node that serves POP3. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { LiveSession } from '../../../src/admin/operations/sessions.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import { putSession } from './rows.ts'

let database: TestDatabase
let program: Program
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  node = await startTestNode({ url: database.url })
})

afterAll(async () => {
  await node?.stop()
  program?.close()
  await database?.close()
})

test('list tells who, from where, since when, on which node', async () => {
  const ids = await addUser(database.db, 'a@list.example')
  await addUser(database.db, 'b@list.example')
  const sessionId = await putSession(database.db, ids, '2001:db8::1')
  await putSession(database.db, await addUser(database.db, 'c@other.example'))
  const all = await program.json<LiveSession[]>(['session', 'list'])
  expect(all.map((session) => session.address)).toEqual(['a@list.example', 'c@other.example'])
  expect(all[0]).toMatchObject({ sessionId, client: '2001:db8::1', node: 'pop1.example:4711' })
  const args = ['session', 'list', '--domain', 'LIST.example']
  expect((await program.json<LiveSession[]>(args)).length).toBe(1)
  const { stdout } = await program.run(args)
  expect(stdout).toMatch(
    /^a@list\.example +2001:db8::1 +\d{4}-\S+ \S+Z +[\da-f]{8} +pop1\.example:4711$/m,
  )
  expect(stdout).toContain(` ${sessionId.slice(0, 8)} `)
  const unknown = await program.run(['session', 'list', '--domain', 'none.example'])
  expect(unknown.status).toBe(1)
})

test('kick frees the maildrop at once and ends the live session at the next heartbeat', async () => {
  await addUser(database.db, 'k@kick.example', { password: 'secret' })
  const client = await logIn('k@kick.example')
  expect(await program.run(['session', 'kick', 'K@kick.example'])).toMatchObject({ status: 0 })
  await node.keeper.beat()
  await client.closed
  expect(await program.run(['session', 'kick', 'k@kick.example'])).toEqual({
    status: 0,
    stdout: 'k@kick.example has no session\n',
    stderr: '',
  })
})

test.each([
  ['a suspended user', ['user', 'suspend', 's1@end.example'], 's1@end.example', ''],
  ['a suspended domain', ['domain', 'suspend', 's2.example'], 's2@s2.example', ''],
  [
    'a new password',
    ['user', 'passwd', 's3@end.example', '--password-stdin'],
    's3@end.example',
    'another password\n',
  ],
  ['a removed user', ['user', 'remove', 's4@end.example', '--yes'], 's4@end.example', ''],
])('%s ends the live session', async (_, args, address, input) => {
  await addUser(database.db, address, { password: 'secret' })
  const client = await logIn(address)
  expect(await program.run(args, input)).toMatchObject({ status: 0, stderr: '' })
  await node.keeper.beat()
  await client.closed
})

function logIn(address: string): Promise<Pop3Client> {
  return Pop3Client.login(node.address, address, 'secret')
}

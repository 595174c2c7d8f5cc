/** What PostgreSQL answers, and what it means for who asked: see also exhausted.test.ts for the replies. */
import { DatabaseError } from 'pg'
import { expect, test } from 'vitest'
import { isTemporary } from '../../../src/base/failure.ts'
import { constraintOf, sqlStateOf, toFailure } from '../../../src/storage/postgres/sqlstate.ts'

function answer(code: string, severity = 'ERROR'): DatabaseError {
  return Object.assign(new DatabaseError(`because of ${code}`, 0, 'error'), { code, severity })
}

test.each([
  // While connecting: nothing was sent.
  ['connecting', '53300', 'too many connections', 'STORAGE_UNAVAILABLE'],
  ['connecting', '57P03', 'starting up or shutting down', 'STORAGE_UNAVAILABLE'],
  ['connecting', '57P01', 'an administrator ended it', 'STORAGE_UNAVAILABLE'],
  ['connecting', '08P01', 'a pooler has no server', 'STORAGE_UNAVAILABLE'],
  ['connecting', '28P01', 'wrong password', 'STORAGE_LOGIN_REFUSED'],
  ['connecting', '28000', 'pg_hba.conf has no line', 'STORAGE_LOGIN_REFUSED'],
  ['connecting', '3D000', 'no such database', 'STORAGE_LOGIN_REFUSED'],
  // Answered to a statement: it was rolled back …
  ['sent', '53100', 'disk full', 'STORAGE_UNAVAILABLE'],
  ['sent', '53200', 'out of memory', 'STORAGE_UNAVAILABLE'],
  ['sent', '53300', 'too many connections, of a pooler', 'STORAGE_UNAVAILABLE'],
  ['sent', '58030', 'I/O error', 'STORAGE_UNAVAILABLE'],
  ['sent', 'XX001', 'data corrupted', 'STORAGE_UNAVAILABLE'],
  ['sent', '25006', 'a standby', 'STORAGE_UNAVAILABLE'],
  ['sent', '26000', 'the pooler forgot the statement', 'STORAGE_UNAVAILABLE'],
  ['sent', '55P03', 'a lock is held', 'STORAGE_CONFLICT'],
  ['sent', '40P01', 'deadlock', 'STORAGE_CONFLICT'],
  ['sent', '23514', 'a constraint', 'STORAGE_REFUSED'],
  // … or nobody knows.
  ['sent', '57P01', 'an administrator ended it', 'STORAGE_IN_DOUBT'],
  ['sent', '57P02', 'another process crashed', 'STORAGE_IN_DOUBT'],
  ['sent', '57P03', 'shutting down', 'STORAGE_IN_DOUBT'],
  ['sent', '08006', 'connection failure', 'STORAGE_IN_DOUBT'],
  ['sent', '08P01', 'query_wait_timeout of a pooler', 'STORAGE_IN_DOUBT'],
] as const)('%s: %s (%s) is %s', (phase, code, _what, expected) => {
  const failure = toFailure(answer(code), phase)
  expect(failure.code).toBe(expected)
  expect(sqlStateOf(failure)).toBe(code)
  expect(failure.message).toContain(`because of ${code}`)
  expect(isTemporary(failure)).toBe(expected !== 'STORAGE_REFUSED')
})

test.each(['no such user: nobody', 'no such database: mail', 'SASL authentication failed'])(
  'a pooler says "%s" in its own way',
  (message) => {
    const said = Object.assign(answer('08P01', 'FATAL'), { message })
    expect(toFailure(said, 'connecting').code).toBe('STORAGE_LOGIN_REFUSED')
    expect(toFailure(said, 'sent').code).toBe('STORAGE_IN_DOUBT')
  },
)

test.each(['53100', '58030', 'XX000'])('a PANIC of %s may yet have been written', (code) => {
  expect(toFailure(answer(code, 'PANIC'), 'sent').code).toBe('STORAGE_IN_DOUBT')
})

// Citus passes on what a server of its said: the message, and a name with the shard's number.
test.each([
  [
    'duplicate key value violates unique constraint "users_address_key_102015"',
    'users_address_key',
  ],
  [
    'new row for relation "old_servers_102099" violates check constraint ' +
      '"old_servers_port_is_1_to_65535"',
    'old_servers_port_is_1_to_65535',
  ],
  [
    'update or delete on table "users_102017" violates foreign key constraint ' +
      '"held_users_domain_id_user_id_fkey_102153" on table "held_users_102153"',
    'held_users_domain_id_user_id_fkey',
  ],
  ['division by zero', undefined],
])('the constraint of a shard: %s', (message, expected) => {
  expect(constraintOf(toFailure(Object.assign(answer('23505'), { message }), 'sent'))).toBe(
    expected,
  )
})

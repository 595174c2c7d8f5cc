/**
 * Rules for the prepared statements, held against the texts themselves: every tenant table that a
 * statement touches is bound to domain_id = $1, so that it can be routed to one shard and never
 * reaches into another tenant. Exempt are only those that are about nodes or
 * failed logins, sweep rows that are too old, or look names up.
 */
import { describe, expect, test } from 'vitest'
import * as accounts from '../../../src/storage/accounts.ts'
import * as bodies from '../../../src/storage/bodies.ts'
import * as certificates from '../../../src/storage/certificates.ts'
import * as deliveries from '../../../src/storage/deliveries.ts'
import * as leases from '../../../src/storage/leases.ts'
import * as messages from '../../../src/storage/messages.ts'
import * as nodes from '../../../src/storage/nodes.ts'
import type { Statement } from '../../../src/storage/postgres/database.ts'
import * as holders from '../../../src/storage/postgres/holders.ts'
import * as retention from '../../../src/storage/retention.ts'
import * as credentials from '../../../src/storage/tenants/credentials.ts'
import * as holds from '../../../src/storage/tenants/holds.ts'
import * as sessionLog from '../../../src/storage/tenants/maildrops/session-log.ts'
import * as oauthProviders from '../../../src/storage/tenants/oauth-providers.ts'
import * as oldServers from '../../../src/storage/tenants/old-servers.ts'
import * as policies from '../../../src/storage/tenants/policies.ts'
import * as throttles from '../../../src/storage/throttles.ts'

const TENANT_TABLES =
  'users|maildrops|bodies|body_chunks|messages|trash|sessions|session_log|imported|domains|credentials|domain_hosts|known_networks|last_logins|legal_holds|held_users'

const BY_NAME = [
  'certificate-owners',
  'recipient',
  'apop-user',
  'scram-use',
  'scram-salt-key',
  'domain-ids',
  'domain-holders',
  'policy-common',
  'tls-host',
  'oauth-provider',
  'oauth-used',
  'migrating-domains',
]

const statements = [
  accounts,
  bodies,
  certificates,
  credentials,
  deliveries,
  holders,
  holds,
  leases,
  messages,
  nodes,
  retention,
  oauthProviders,
  oldServers,
  policies,
  sessionLog,
  throttles,
]
  .flatMap((module): unknown[] => Object.values(module))
  .filter((value): value is Statement => {
    const { name, text } = Object(value)
    return typeof name === 'string' && typeof text === 'string'
  })

const ofTenants = statements.filter(
  ({ name, text }) =>
    !BY_NAME.includes(name) && !/^nodes?-|^throttles|-sweep$/.test(name) && text !== '',
)

test('each has a name of its own', () => {
  expect(statements.length).toBeGreaterThan(20)
  expect(new Set(statements.map(({ name }) => name)).size).toBe(statements.length)
})

describe.each(ofTenants)('$name', ({ text }) => {
  test('binds each tenant table to the domain', () => {
    const reads = [
      ...text.matchAll(new RegExp(`\\b(?:from|join|update|using)\\s+(${TENANT_TABLES})\\b`, 'g')),
    ]
    const bound = text.match(/domain_id = \$1/g) ?? []
    const joined = text.match(/(\w+)\.domain_id = (\w+)\.domain_id/g) ?? []
    expect(bound.length + joined.length).toBeGreaterThanOrEqual(reads.length)
    const inserts = [
      ...text.matchAll(
        /insert into (\w+)(?: as \w+)? \(domain_id, [^)]*\)\s+(?:values \(\$1|select (?:\$1|[uo]\.domain_id))/g,
      ),
    ]
    expect(inserts.length).toBe((text.match(/insert into/g) ?? []).length)
  })

  test('has no subquery in VALUES and nothing volatile', () => {
    expect(text).not.toMatch(/values\s*\([^)]*select/i)
    expect(text).not.toMatch(/\b(random|gen_random_uuid|clock_timestamp|nextval)\b/i)
  })
})

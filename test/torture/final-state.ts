/**
 * What the database holds when all nodes have ended: every message and its octets' digest, what lies in
 * the trash, the counters, what `popgres check` finds, and what the sweep leaves behind. SQL of its own
 * where that is simple, so that the server's reading is not believed.
 */
import { checkMail } from '../../src/admin/operations/check.ts'
import { purgeTrash, selectDomainIds, sweepBodies } from '../../src/storage/retention.ts'
import { openTestConnection } from '../support/postgres.ts'
import type { FinalMessage, FinalState } from './check/final.ts'
import { examine } from './clients/content.ts'
import type { TorturePostgres } from './fault.ts'

const BATCH = 1_000

export async function readFinalState(postgres: TorturePostgres): Promise<FinalState> {
  const messages = [
    ...(await readMessages(postgres, 'messages')),
    ...(await readMessages(postgres, 'trash')),
  ]
  const counters = await postgres.query(`
    select lower(u.local_part) || '@' || d.name as maildrop, m.message_count as count,
      m.octets::float8 as octets, m.next_uid as "nextUid"
    from maildrops m join users u using (domain_id, user_id) join domains d using (domain_id)`)
  const findings = await check(postgres)
  const orphans = await sweep(postgres)
  findings.push(...(await check(postgres)))
  const afterSweep = await readMessages(postgres, 'messages')
  return {
    messages,
    counters: counters as unknown as FinalState['counters'],
    findings,
    orphans,
    afterSweep: afterSweep.map(({ maildrop, uniqueId, digest }) => ({
      maildrop,
      uniqueId,
      digest,
    })),
  }
}

async function readMessages(
  postgres: TorturePostgres,
  table: 'messages' | 'trash',
): Promise<FinalMessage[]> {
  const rows = await postgres.query(`
    select lower(u.local_part) || '@' || d.name as maildrop, r.uid, r.octets,
      coalesce(r.unique_id, m.uid_validity || '.' || r.uid) as unique_id, r.prefix,
      coalesce(c.octets, 0)::integer as body_octets, c.digest, c.start,
      ${table === 'trash' ? 'r.session_id::text' : 'null'} as session
    from ${table} r join users u using (domain_id, user_id) join domains d using (domain_id)
      join maildrops m using (domain_id, user_id)
      left join lateral (
        select sum(octet_length(data)) as octets,
          left(encode(sha256(string_agg(data, ''::bytea order by seq)), 'hex'), 32) as digest,
          substr((array_agg(data order by seq))[1], 1, 200) as start
        from body_chunks where domain_id = r.domain_id and body_id = r.body_id
      ) c on true
    order by r.domain_id, r.user_id, r.uid`)
  return rows.map((row) => {
    const prefix = row.prefix as Buffer
    const { token, names } = examine(
      Buffer.concat([prefix, (row.start as Buffer) ?? Buffer.alloc(0)]),
    )
    return {
      maildrop: String(row.maildrop),
      uid: Number(row.uid),
      uniqueId: String(row.unique_id),
      place: table === 'messages' ? 'maildrop' : 'trash',
      octets: Number(row.octets),
      storedOctets: prefix.length + Number(row.body_octets),
      token,
      digest: String(row.digest),
      names,
      deletedBy: row.session === null ? undefined : String(row.session),
    }
  })
}

async function check(postgres: TorturePostgres): Promise<string[]> {
  const db = openTestConnection(postgres.url)
  try {
    const { findings } = await checkMail(db, undefined, false)
    return findings.map(
      ({ kind, address, domain, detail }) => `${kind} of ${address ?? domain}: ${detail}`,
    )
  } finally {
    await db.close()
  }
}

/**
 * Everything is made old, then what retention does is done: first without the trash, then with it.
 * @returns what no row names and is there still
 */
async function sweep(postgres: TorturePostgres): Promise<FinalState['orphans']> {
  const db = openTestConnection(postgres.url)
  try {
    await postgres.query(`update bodies set created_at = now() - interval '2 days'`)
    for (const domainId of await selectDomainIds(db))
      while ((await sweepBodies(db, domainId, BATCH)) === BATCH);
    const beforePurge = await countOrphans(postgres)
    await postgres.query(`update trash set deleted_at = now() - interval '11 years'`)
    for (const domainId of await selectDomainIds(db)) {
      while ((await purgeTrash(db, domainId, BATCH)) === BATCH);
      while ((await sweepBodies(db, domainId, BATCH)) === BATCH);
    }
    const [trash] = await postgres.query('select count(*)::integer as left from trash')
    return { beforePurge, afterPurge: await countOrphans(postgres), trash: Number(trash?.left) }
  } finally {
    await db.close()
  }
}

async function countOrphans(postgres: TorturePostgres): Promise<number> {
  const [row] = await postgres.query(`
    select (
      select count(*) from bodies b
      where not exists (select from messages m
          where m.domain_id = b.domain_id and m.body_id = b.body_id)
        and not exists (select from trash t
          where t.domain_id = b.domain_id and t.body_id = b.body_id)
    ) + (
      select count(*) from body_chunks c
      where not exists (select from bodies b
        where b.domain_id = c.domain_id and b.body_id = c.body_id)
    ) as orphans`)
  return Number(row?.orphans)
}

/**
 * Domains whose server is away, in one PostgreSQL: whoever logs in as the serving role and touches a
 * row of theirs is answered what a coordinator of Citus answers, an error of class 08 on a connection
 * that stands. Each domain is held by a server of its own.
 */
import { sql } from 'kysely'
import { DISTRIBUTED_TABLES } from '../../src/storage/postgres/citus.ts'
import type { Database } from '../../src/storage/postgres/database.ts'

export interface AwayDomains {
  take(domainId: number): Promise<void>
  bringBack(domainId: number): Promise<void>
}

/** @param db as the owner, who goes on seeing everything */
export async function prepareAwayDomains(db: Database): Promise<AwayDomains> {
  const run = (text: string) => sql.raw(text).execute(db.kysely)
  await run('create table away_domains (domain_id integer primary key)')
  await run('grant select on away_domains to public')
  await run(`create function is_here(of_domain integer) returns boolean language plpgsql as $$
    begin
      if exists (select from away_domains a where a.domain_id = of_domain) then
        raise exception 'connection to the remote node failed' using errcode = '08006';
      end if;
      return true;
    end $$`)
  for (const table of DISTRIBUTED_TABLES) {
    await run(`alter table ${table} enable row level security`)
    await run(`create policy held on ${table} using (is_here(domain_id))`)
  }
  await run(`create or replace function domain_holder(of_domain integer) returns integer
    language sql stable as 'select of_domain'`)
  return {
    take: async (domainId) => {
      await run(`insert into away_domains values (${domainId})`)
    },
    bringBack: async (domainId) => {
      await run(`delete from away_domains where domain_id = ${domainId}`)
    },
  }
}

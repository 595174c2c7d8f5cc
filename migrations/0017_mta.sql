-- lowest-node-version: 0.1.0
-- What an MTA asks while a sender is still connected: whether a domain is hosted here, and whether an
-- address takes mail now (find_recipients). docs/mta.md has the MTAs that ask.
--
-- They run as the owner of the tables, so that the MTA's role sees answers and no table, and they look
-- for tables where this migration makes them and nowhere else: a temporary table of the same name comes
-- last. Whoever replaces one of them has to say both again.

-- The domain as its row has it; no row: mail for it is not taken here.
create function hosted_domain(domain text) returns setof text
language sql stable security definer as $$
  select d.name from domains d where d.name = lower(hosted_domain.domain collate "C")
$$;

-- As the reply to RCPT says it: 'yes'; 'full': one whom the address names is over quota; no row: there
-- is no such address.
create function deliverable(local_part text, domain text) returns setof text
language sql stable security definer as $$
  select case when bool_or(r.is_over_quota) then 'full' else 'yes' end
  from find_recipients(deliverable.local_part || '@' || deliverable.domain) r
  having count(*) > 0
$$;

do $$
declare
  of_ours text;
begin
  foreach of_ours in array array['hosted_domain(text)', 'deliverable(text, text)'] loop
    execute format('alter function %s set search_path = %I, pg_temp', of_ours, current_schema());
    execute format('revoke execute on function %s from public', of_ours);
  end loop;
end $$;

-- Lets a role ask the two and takes from it whatever else it was granted on these tables.
create function grant_lookups(role_name text) returns void
language plpgsql as $$
begin
  if pg_has_role(role_name, (select c.relowner from pg_class c where c.oid = 'domains'::regclass),
                 'member') then
    raise exception 'the role % is the owner of the tables, or may become it', role_name
      using errcode = 'invalid_grant_operation',
            hint = 'create role popgres_mta login password ''…''';
  end if;
  execute format('revoke all on all tables in schema %I from %I', current_schema(), role_name);
  execute format('grant usage on schema %I to %I', current_schema(), role_name);
  execute format('grant execute on function hosted_domain(text), deliverable(text, text) to %I',
                 role_name);
end $$;

comment on function hosted_domain(text) is 'the name of a domain that is hosted here, else no row';
comment on function deliverable(text, text) is
  'whether an address takes mail now: yes, full, or no row for an unknown one';
comment on function grant_lookups(text) is 'lets the role of an MTA ask for addresses, and no more';

-- lowest-node-version: 0.1.0
-- The role that nodes log in as, if it is not the owner of the tables.

-- Lets a role do what `popgres serve` does, and takes from it whatever else it was granted on these
-- tables. It gets no table of its own and changes none; users, domains and their settings it reads.
-- To be called again after each migration: popgres migrate --serve-role does so.
create function grant_serving(role_name text) returns void
language plpgsql as $$
declare
  grants constant text[] := array[
    'revoke all on all tables in schema %2$I from %1$I',
    'grant usage on schema %2$I to %1$I',
    'grant select on schema_migrations, schema_requirements to %1$I',
    'grant select on domains, domain_hosts, certificates, oauth_providers, shared_keys to %1$I',
    -- Rehashed passwords, derived keys, the time of the last use.
    'grant select, update (password_hash, scram_keys) on users to %1$I',
    'grant select, update (last_used_at) on credentials to %1$I',
    'grant select, insert, update, delete on throttles, known_networks, last_logins to %1$I',
    'grant select, insert, update, delete on nodes, sessions to %1$I',
    'grant select, insert on session_log to %1$I',
    'grant select, insert, update (message_count, octets, next_uid) on maildrops to %1$I',
    'grant select, insert, update (octets), delete on bodies to %1$I',
    'grant select, insert on body_chunks to %1$I',
    'grant select, insert, delete on messages to %1$I',
    -- Update: what is purged is locked first.
    'grant select, insert, update (deleted_at), delete on trash to %1$I'];
  statement text;
begin
  if pg_has_role(role_name, (select c.relowner from pg_class c where c.oid = 'domains'::regclass),
                 'member') then
    raise exception 'the role % is the owner of the tables, or may become it', role_name
      using errcode = 'invalid_grant_operation',
            hint = 'create role popgres_serve login password ''…''';
  end if;
  foreach statement in array grants loop
    execute format(statement, role_name, current_schema());
  end loop;
end $$;

comment on function grant_serving(text) is 'lets a role do what popgres serve does, and no more';

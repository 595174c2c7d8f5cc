-- lowest-node-version: 0.1.0
-- More than one address for a maildrop, and room by user and by domain. Only adds: nodes of before this
-- migration go on working beside newer ones, but know none of it; domains get quotas and aliases when
-- all nodes are new.
--
-- Whom an address names, the first that there is (storage/tenants/recipients.ts asks so at RCPT):
--   1. the user of that name
--   2. the alias of that name
--   3. and 4. as 1. and 2., without what follows the domain's separator (alice+tag: alice)
--   5. the domain's catch-all
-- of a domain that stands for another one: 1. of its own, then all of the other one's.

-- Logins wait for the lock on domains, which nodes do not do for long: it is changed late, and users by
-- a migration of its own (0015), as who has one of the two and wants the other would wait for a login
-- that does the same. What needs the new columns is written before they are there.
set local check_function_bodies = off;

-- One row for each user that an alias stands for, in whatever domain; the alias with the empty name is
-- the domain's catch-all. An alias names users and never another alias: there is nothing to go round
-- in. No key to users, which may lie on another server: a row whose user is gone names nobody, ids
-- are not used again, and remove_user takes such rows along.
create table aliases (
  domain_id         integer not null references domains on delete cascade,
  local_part        text collate "C" not null,          -- in lower case; '': the catch-all
  position          smallint not null,
  target_domain_id  integer not null references domains on delete cascade,
  target_user_id    bigint not null,
  created_at        timestamptz not null default now(),
  primary key (domain_id, local_part, position),
  constraint aliases_target_key unique (domain_id, local_part, target_domain_id, target_user_id),
  constraint aliases_has_at_most_100_targets check (position between 1 and 100),
  constraint aliases_local_part_is_lower_case_dot_atom check (
    length(local_part) <= 64 and local_part ~
      '^([a-z0-9!#$%&''*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&''*+/=?^_`{|}~-]+)*)?$')
);
create index aliases_by_target on aliases (target_domain_id, target_user_id);
alter table aliases alter column domain_id set (n_distinct = -0.001);

-- The room of a domain, and what of it is taken. Only a domain with a quota has a row, made by
-- set_domain_quota: deliveries and QUITs of the others have nothing to wait for. One that was made by
-- hand would count from wherever it stands.
create table domain_quotas (
  domain_id       integer primary key references domains on delete cascade,
  quota_octets    bigint,                               -- null: no limit
  quota_messages  bigint,                               -- null: no limit
  octets          bigint not null,                      -- of all its maildrops
  message_count   bigint not null,
  constraint domain_quotas_not_negative check (quota_octets >= 0 and quota_messages >= 0),
  constraint domain_quotas_limits_something check (num_nonnulls(quota_octets, quota_messages) > 0)
) with (fillfactor = 50);

-- A domain that addresses are of, and not one that only stands for another.
create function find_own_domain(domain_name text) returns integer
language plpgsql stable as $$
declare
  found record;
begin
  select d.domain_id, o.name as stands_for into found
  from domains d left join domains o on o.domain_id = d.alias_of
  where d.name = lower(domain_name collate "C");
  if found.domain_id is null then
    raise exception 'there is no domain %', domain_name using errcode = 'no_data_found';
  elsif found.stands_for is not null then
    raise exception '% stands for %: name the address there', domain_name, found.stands_for
      using errcode = 'wrong_object_type';
  end if;
  return found.domain_id;
end $$;

-- Mail for `address` goes to `target` too, a user of any domain. An address without a local part
-- (@example.com) is the catch-all.
create function add_alias(address text, target text) returns void
language plpgsql as $$
declare
  for_domain constant integer := find_own_domain(split_part(address, '@', -1));
  name constant text := lower(regexp_replace(address collate "C", '@[^@]*$', '') collate "C");
  target_domain constant text := split_part(target, '@', -1);
  target_name constant text := lower(regexp_replace(target collate "C", '@[^@]*$', '') collate "C");
  in_domain integer;
  for_user bigint;
  free smallint;
begin
  if position('@' in address) = 0 or position('@' in target) < 2 then
    raise exception 'an alias is written sales@example.com or @example.com, a target bob@example.com'
      using errcode = 'invalid_parameter_value';
  elsif not exists (select from domains d where d.name = lower(target_domain collate "C")) then
    raise exception '% is not of this server, and mail is not sent on: an alias names users of it',
      target using errcode = 'no_data_found';
  end if;
  in_domain := find_own_domain(target_domain);
  select u.user_id into for_user from users u
    where u.domain_id = in_domain and lower(u.local_part) = target_name;
  if for_user is null then
    if exists (select from aliases a
               where a.domain_id = in_domain and a.local_part = target_name) then
      raise exception '% is an alias itself: name the users that it stands for', target
        using errcode = 'wrong_object_type';
    end if;
    raise exception 'there is no user with the address %', target using errcode = 'no_data_found';
  end if;
  if exists (select from users u
             where u.domain_id = for_domain and lower(u.local_part) = name) then
    raise exception '% is a user, who comes before an alias of that name', address
      using errcode = 'duplicate_object';
  end if;
  -- One at a time for each domain, so that the next place is free.
  perform from domains d where d.domain_id = for_domain for no key update;
  select min(n) into free from generate_series(1, 100) n
    where not exists (select from aliases a
      where a.domain_id = for_domain and a.local_part = name and a.position = n);
  if free is null then
    raise exception '% stands for 100 users already', address
      using errcode = 'program_limit_exceeded';
  end if;
  insert into aliases (domain_id, local_part, position, target_domain_id, target_user_id)
  values (for_domain, name, free, in_domain, for_user);
end $$;

-- Mail for `address` goes to `target` no longer, or (null) to nobody. Returns how many went.
create function remove_alias(address text, target text default null) returns integer
language plpgsql as $$
declare
  for_domain constant integer := find_domain(split_part(address, '@', -1));
  name constant text := lower(regexp_replace(address collate "C", '@[^@]*$', '') collate "C");
  who record;
  gone integer;
begin
  if target is not null then
    who := find_user(target);
    delete from aliases a where a.domain_id = for_domain and a.local_part = name
      and a.target_domain_id = who.domain_id and a.target_user_id = who.user_id;
  else
    delete from aliases a where a.domain_id = for_domain and a.local_part = name;
  end if;
  get diagnostics gone = row_count;
  return gone;
end $$;

-- Each address of the domain is then the one of that name in the other; null: it stands for itself.
create function set_domain_alias(domain_name text, other_name text) returns void
language plpgsql as $$
declare
  for_domain constant integer := find_domain(domain_name);
  other_domain integer;
begin
  if other_name is not null then
    other_domain := find_own_domain(other_name);
    if other_domain = for_domain then
      raise exception '% cannot stand for itself', domain_name using errcode = 'wrong_object_type';
    elsif exists (select from domains d where d.alias_of = for_domain) then
      raise exception 'another domain stands for %: no domain stands for one that stands for another',
        domain_name using errcode = 'wrong_object_type';
    elsif exists (select from aliases a where a.domain_id = for_domain) then
      raise exception '% has aliases, which would count no longer: remove them first', domain_name
        using errcode = 'wrong_object_type';
    end if;
  end if;
  update domains d set alias_of = other_domain where d.domain_id = for_domain;
end $$;

-- The room of all maildrops of a domain together; null: no limit, twice null: it is not counted any
-- more. Counts anew. That no delivery is missed: each locks the table before it looks, so the lock below
-- waits for those that have begun and holds those that come until they see the row.
create function set_domain_quota(domain_name text, for_octets bigint, for_messages bigint)
returns void
language plpgsql set lock_timeout = '2s' as $$
declare
  for_domain constant integer := find_domain(domain_name);
begin
  -- In the order of remove_domain: the domain first.
  perform from domains d where d.domain_id = for_domain for no key update;
  lock table domain_quotas in exclusive mode;
  if num_nonnulls(for_octets, for_messages) = 0 then
    delete from domain_quotas q where q.domain_id = for_domain;
    return;
  end if;
  insert into domain_quotas as q (domain_id, quota_octets, quota_messages, octets, message_count)
  select for_domain, for_octets, for_messages, coalesce(sum(m.octets), 0),
    coalesce(sum(m.message_count), 0)
  from maildrops m where m.domain_id = for_domain
  on conflict (domain_id) do update
    set quota_octets = excluded.quota_octets, quota_messages = excluded.quota_messages,
        octets = excluded.octets, message_count = excluded.message_count;
end $$;

-- Whom an address names that is no user's own: steps 2 to 5 above, and 1 of the domain that this one
-- stands for. storage/tenants/recipients.ts calls it at RCPT, only if there is no such user; in plpgsql, so
-- that who has a user pays nothing for it, not even the start of a plan.
create function other_recipients(for_domain text, for_local_part text)
returns table (domain_id integer, user_id bigint)
language plpgsql stable rows 1 as $$
declare
  wanted constant text := lower(for_local_part collate "C");
begin
  return query
  select f.domain_id, f.user_id
  from domains d
    join domains o on o.domain_id = coalesce(d.alias_of, d.domain_id)
    cross join lateral (
      values (1, wanted),
        (3, case when strpos(wanted, o.separator) > 1 then split_part(wanted, o.separator, 1) end),
        (5, '')
    ) n (step, local_part)
    cross join lateral (
      select n.step as step, u.domain_id, u.user_id from users u
      where u.domain_id = o.domain_id and lower(u.local_part) = n.local_part
      union all
      select n.step + 1, u.domain_id, u.user_id
      from aliases a join users u
        on u.domain_id = a.target_domain_id and u.user_id = a.target_user_id
      where a.domain_id = o.domain_id and a.local_part = n.local_part
        and case n.step when 5 then o.catch_all_allowed else o.aliases_allowed end
    ) f
  where d.name = lower(for_domain collate "C")
  order by f.step fetch first 1 row with ties;
end $$;

-- Whom an address names, for people and for MTAs: the answer of RCPT. No row: there is no such address.
create function find_recipients(address text)
returns table (domain_id integer, user_id bigint, recipient text, is_over_quota boolean)
language sql stable as $$
  with asked as (
    select split_part(address, '@', -1) as domain_name,
      regexp_replace(address, '@[^@]*$', '') as local_part
    where position('@' in address) > 1
  ), named as (
    select d.domain_id, u.user_id
    from asked k join domains d on d.name = lower(k.domain_name collate "C")
      join users u on u.domain_id = d.domain_id
        and lower(u.local_part) = lower(k.local_part collate "C")
  ), found as (
    select * from named
    union all
    select o.* from asked k cross join other_recipients(k.domain_name, k.local_part) o
    where not exists (select from named)
  )
  select f.domain_id, f.user_id, u.local_part || '@' || d.name,
    coalesce(coalesce(m.octets, 0) >= u.quota_octets, false)
      or coalesce(coalesce(m.message_count, 0) >= u.quota_messages, false)
      or coalesce(q.octets >= q.quota_octets, false)
      or coalesce(q.message_count >= q.quota_messages, false)
  from found f
    join domains d on d.domain_id = f.domain_id
    join users u on u.domain_id = f.domain_id and u.user_id = f.user_id
    left join maildrops m on m.domain_id = f.domain_id and m.user_id = f.user_id
    left join domain_quotas q on q.domain_id = f.domain_id
$$;

-- As before, and the domain's room is given back.
create or replace function discard_messages(for_domain integer, for_user bigint, uids integer[])
returns integer
language plpgsql as $$
declare
  own_session constant uuid := gen_random_uuid();
  own_node constant uuid := '00000000-0000-0000-0000-000000000000';
  dead_nodes constant uuid[] := array(
    select n.node_id from nodes n where n.heartbeat_at <= now() - interval '30 s');
  deleted_count integer;
begin
  insert into sessions as s (domain_id, user_id, session_id, node_id, client, since)
  values (for_domain, for_user, own_session, own_node, 'sql', now())
  on conflict (domain_id, user_id) do update
    set session_id = excluded.session_id, node_id = excluded.node_id, client = excluded.client,
        since = excluded.since, credential_id = null, wanted_at = null
    where s.node_id = any (dead_nodes);
  if not found then
    return null;
  end if;

  with gone as (
    delete from messages m
    where m.domain_id = for_domain and m.user_id = for_user and m.uid = any (uids)
    returning m.uid, m.octets, m.body_id, m.prefix, m.unique_id, m.received_at
  ), kept as (
    insert into trash (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at,
                       session_id, deleted_at)
    select for_domain, for_user, g.uid, g.octets, g.body_id, g.prefix, g.unique_id, g.received_at,
           own_session, now()
    from gone g
  ), counted as (
    update maildrops d
    set message_count = d.message_count - (select count(*) from gone)::integer,
        octets = d.octets - (select coalesce(sum(g.octets), 0) from gone g)::bigint
    where d.domain_id = for_domain and d.user_id = for_user
    returning 1
  ), given_back as (
    update domain_quotas q
    set message_count = q.message_count - (select count(*) from gone),
        octets = q.octets - (select coalesce(sum(g.octets), 0) from gone g)::bigint
    where q.domain_id = for_domain and (select count(*) from counted) > 0
  )
  select count(*) into deleted_count from gone;

  if deleted_count > 0 then
    insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
    values (for_domain, for_user, own_session, now(), deleted_count);
  end if;
  delete from sessions s
  where s.domain_id = for_domain and s.user_id = for_user and s.session_id = own_session;
  return deleted_count;
end $$;

-- As before, and with what else the user is called; the domain's room is given back.
create or replace function remove_user(address text) returns void
language plpgsql as $$
declare
  who record;
  held record;
begin
  who := find_user(address);
  delete from sessions s where s.domain_id = who.domain_id and s.user_id = who.user_id;
  select d.message_count, d.octets into held from maildrops d
    where d.domain_id = who.domain_id and d.user_id = who.user_id for update;
  delete from users u where u.domain_id = who.domain_id and u.user_id = who.user_id;
  delete from trash t where t.domain_id = who.domain_id and t.user_id = who.user_id;
  delete from aliases a
    where a.target_domain_id = who.domain_id and a.target_user_id = who.user_id;
  update domain_quotas q
  set message_count = q.message_count - held.message_count, octets = q.octets - held.octets
  where q.domain_id = who.domain_id and held.octets is not null;
end $$;

-- As before, and: nodes read aliases, and count a domain's room.
create or replace function grant_serving(role_name text) returns void
language plpgsql as $$
declare
  grants constant text[] := array[
    'revoke all on all tables in schema %2$I from %1$I',
    'grant usage on schema %2$I to %1$I',
    'grant select on schema_migrations, schema_requirements to %1$I',
    'grant select on domains, domain_hosts, certificates, oauth_providers, shared_keys to %1$I',
    'grant select on aliases to %1$I',
    'grant select, update (octets, message_count) on domain_quotas to %1$I',
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

alter table domains
  add column alias_of integer,                          -- the domain that it stands for; null: itself
  add column aliases_allowed boolean not null default true,
  add column catch_all_allowed boolean not null default true,
  add column separator text,                            -- of alice+tag; null: there is no such thing
  -- What a message is told that there is no room for: 452 (the sender's server tries again for
  -- days) or 552 (the sender hears of it at once).
  add column over_quota text not null default 'defer',
  -- A domain that others stand for stands for none, so chains and loops cannot be: the key below
  -- wants the other one's is_alias to be false, and keeps it so.
  add column is_alias boolean not null generated always as (alias_of is not null) stored,
  add column alias_of_is_alias boolean not null generated always as (false) stored,
  add constraint domains_separator_is_one_sign check (separator ~ '^[-+=_#~%]$'),
  add constraint domains_over_quota_is_known check (over_quota in ('defer', 'refuse'));
-- is_alias first: who looks for a domain_id takes the primary key.
create unique index domains_by_is_alias on domains (is_alias, domain_id);
alter table domains add constraint domains_alias_of_is_no_alias
  foreign key (alias_of, alias_of_is_alias) references domains (domain_id, is_alias);
create index domains_by_alias_of on domains (alias_of) where alias_of is not null;

comment on function add_alias(text, text) is
  'mail for an address, or (@example.com) for every other one, goes to a user';
comment on function remove_alias(text, text) is
  'takes a target from an alias, or the whole alias; returns how many targets went';
comment on function set_domain_alias(text, text) is
  'each address of a domain is the one of that name in another; null: no longer';
comment on function set_domain_quota(text, bigint, bigint) is
  'room of a domain in octets and messages; null: no limit; counts anew';
comment on function other_recipients(text, text) is
  'who gets the mail for an address that is no user''s own';
comment on function find_recipients(text) is 'who gets the mail for an address; no row: nobody';

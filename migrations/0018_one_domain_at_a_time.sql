-- lowest-node-version: 0.1.0
-- Functions that name the domain in whatever they ask, one domain at a time: where tables lie on several
-- servers (docs/scaling.md) each question goes to the one that has the domain, and another that is away
-- keeps nobody else waiting. In plpgsql: Citus takes no parameters of functions in plain SQL. They do what
-- they did; nodes of before this migration go on calling other_recipients.

-- Whom an address names, as 0012_addresses.sql says it. flags is null or the sum of 1: over quota, the user's
-- own or the domain's; 2: the domain refuses mail that finds no room, rather than defers it.
create function recipients(for_domain text, for_local_part text)
returns table (domain_id integer, user_id bigint, domain text, local_part text, flags integer)
language plpgsql stable rows 1 as $$
declare
  wanted constant text := lower(for_local_part collate "C");
  own record;
begin
  select d.domain_id, d.name, d.over_quota, d.alias_of, d.separator, d.aliases_allowed,
    d.catch_all_allowed
  into own from domains d where d.name = lower(for_domain collate "C");
  if not found then
    return;
  end if;
  -- What tells whether there is room is asked for only of who has a quota. The newest version of a
  -- maildrop's row is the last one in the index.
  return query
  select own.domain_id, u.user_id, own.name, u.local_part,
    nullif(case when coalesce(case when num_nonnulls(u.quota_octets, u.quota_messages) > 0 then (
          select coalesce(m.octets, 0) >= u.quota_octets
            or coalesce(m.message_count, 0) >= u.quota_messages
          from (select) one left join lateral (
            select m.octets, m.message_count from maildrops m
            where m.domain_id = own.domain_id and m.user_id between u.user_id and u.user_id
            order by m.user_id desc limit 1
          ) m on true) end
        or (select coalesce(q.octets >= q.quota_octets, false)
            or coalesce(q.message_count >= q.quota_messages, false)
          from domain_quotas q where q.domain_id = own.domain_id), false) then 1 else 0 end
      + case own.over_quota when 'refuse' then 2 else 0 end, 0)
  from users u where u.domain_id = own.domain_id and lower(u.local_part) = wanted;
  if found then
    return;
  end if;

  if own.alias_of is not null then
    return query select r.* from recipients(
      (select d.name from domains d where d.domain_id = own.alias_of), wanted) r;
    return;
  end if;
  if own.aliases_allowed then
    return query select r.* from alias_recipients(own.domain_id, wanted) r;
    if found then
      return;
    end if;
  end if;
  if strpos(wanted, own.separator) > 1 then
    return query select r.* from recipients(own.name, split_part(wanted, own.separator, 1)) r;
  elsif own.catch_all_allowed then
    return query select r.* from alias_recipients(own.domain_id, '') r;
  end if;
end $$;

-- Those for whom the alias of that name in that domain stands, in their order.
create function alias_recipients(for_domain integer, for_local_part text)
returns table (domain_id integer, user_id bigint, domain text, local_part text, flags integer)
language plpgsql stable rows 1 as $$
declare
  target record;
  target_name text;
begin
  for target in
    select a.target_domain_id, a.target_user_id, d.name as domain
    from aliases a join domains d on d.domain_id = a.target_domain_id
    where a.domain_id = for_domain and a.local_part = for_local_part order by a.position
  loop
    select u.local_part into target_name from users u
    where u.domain_id = target.target_domain_id and u.user_id = target.target_user_id;
    if found then
      return query select r.* from recipients(target.domain, target_name) r;
    end if;
  end loop;
end $$;

-- As before, the domain first.
create or replace function find_user(address text, out domain_id integer, out user_id bigint)
language plpgsql stable as $$
begin
  if position('@' in address) > 0 then
    select d.domain_id into find_user.domain_id from domains d
    where d.name = lower(split_part(address collate "C", '@', -1));
    select u.user_id into find_user.user_id from users u
    where u.domain_id = find_user.domain_id
      and lower(u.local_part) = lower(regexp_replace(address collate "C", '@[^@]*$', ''));
  end if;
  if find_user.user_id is null then
    raise exception 'there is no user with the address %', address using errcode = 'no_data_found';
  end if;
end $$;

-- As before; of no more use to nodes than before this migration.
create or replace function other_recipients(for_domain text, for_local_part text)
returns table (domain_id integer, user_id bigint)
language plpgsql stable rows 1 as $$
begin
  return query select r.domain_id, r.user_id from recipients(for_domain, for_local_part) r;
end $$;

-- As before.
create or replace function find_recipients(address text)
returns table (domain_id integer, user_id bigint, recipient text, is_over_quota boolean)
language plpgsql stable as $$
begin
  if position('@' in address) > 1 then
    return query
    select r.domain_id, r.user_id, r.local_part || '@' || r.domain, coalesce(r.flags & 1 = 1, false)
    from recipients(split_part(address, '@', -1), regexp_replace(address, '@[^@]*$', '')) r;
  end if;
end $$;

-- As before, but what one arm of a statement inserts of another, it inserts beside a row of users: otherwise
-- Citus sends it to every server, whichever is away.
create or replace function move_to_trash(for_domain integer, for_user bigint, uids integer[])
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
    select o.domain_id, o.user_id, g.uid, g.octets, g.body_id, g.prefix, g.unique_id, g.received_at,
           own_session, now()
    from gone g cross join (
      select u.domain_id, u.user_id from users u
      where u.domain_id = for_domain and u.user_id = for_user) o
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

-- As before, in the same way.
create or replace function put_back(for_domain integer, for_user bigint, uids integer[]) returns integer
language plpgsql as $$
declare
  own_session constant uuid := gen_random_uuid();
  own_node constant uuid := '00000000-0000-0000-0000-000000000000';
  dead_nodes constant uuid[] := array(
    select n.node_id from nodes n where n.heartbeat_at <= now() - interval '30 s');
  back_count integer;
  back_octets bigint;
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

  -- In the order of a delivery, so the two never deadlock.
  perform from maildrops d
    where d.domain_id = for_domain and d.user_id = for_user for no key update;
  with found as (
    select t.uid, t.octets, t.body_id, t.prefix, t.unique_id, t.received_at from trash t
    where t.domain_id = for_domain and t.user_id = for_user and t.uid = any (uids)
    for update
  ), back as (
    insert into messages (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at)
    select o.domain_id, o.user_id, f.uid, f.octets, f.body_id, f.prefix, f.unique_id, f.received_at
    from found f cross join (
      select u.domain_id, u.user_id from users u
      where u.domain_id = for_domain and u.user_id = for_user) o
    on conflict do nothing
    returning uid, octets, unique_id
  ), gone as (
    delete from trash t
    where t.domain_id = for_domain and t.user_id = for_user
      and t.uid in (select b.uid from back b)
  ), counted as (
    update maildrops d
    set message_count = d.message_count + (select count(*) from back)::integer,
        octets = d.octets + (select coalesce(sum(b.octets), 0) from back b)::bigint,
        next_uid = greatest(d.next_uid, (select max(b.uid) + 1 from back b)),
        has_unique_ids = d.has_unique_ids
          or exists (select from back b where b.unique_id is not null)
    where d.domain_id = for_domain and d.user_id = for_user
  )
  select count(*), coalesce(sum(b.octets), 0) into back_count, back_octets from back b;

  perform take_room(for_domain, back_count, back_octets);
  delete from sessions s
  where s.domain_id = for_domain and s.user_id = for_user and s.session_id = own_session;
  return back_count;
end $$;

-- As before. What is sent to a server beside a look into a table goes there whole: so the uids first, and
-- then the call.
create or replace function restore_messages(
  address text, of_session uuid default null, since timestamptz default '-infinity',
  until timestamptz default 'infinity'
) returns integer
language plpgsql as $$
declare
  who record;
  uids integer[];
  back_count integer;
begin
  who := find_user(address);
  select array_agg(t.uid) into uids from trash t
  where t.domain_id = who.domain_id and t.user_id = who.user_id
    and (of_session is null or t.session_id = of_session)
    and t.deleted_at >= since and t.deleted_at < until;
  back_count := put_back(who.domain_id, who.user_id, uids);
  if back_count is null then
    raise exception 'the maildrop of % is open in a session', address
      using errcode = 'object_in_use', hint = format('select kick(%L) ends it', address);
  end if;
  return back_count;
end $$;

-- As before, but what is inserted is named, and not what a look into another table has come to.
create or replace function set_domain_quota(domain_name text, for_octets bigint, for_messages bigint)
returns void
language plpgsql set lock_timeout = '2s' as $$
declare
  for_domain constant integer := find_domain(domain_name);
  held record;
begin
  -- In the order of remove_domain: the domain first.
  perform from domains d where d.domain_id = for_domain for no key update;
  lock table domain_quotas in exclusive mode;
  if num_nonnulls(for_octets, for_messages) = 0 then
    delete from domain_quotas q where q.domain_id = for_domain;
    return;
  end if;
  select coalesce(sum(m.octets), 0) as octets, coalesce(sum(m.message_count), 0) as messages
  into held from maildrops m where m.domain_id = for_domain;
  insert into domain_quotas as q (domain_id, quota_octets, quota_messages, octets, message_count)
  values (for_domain, for_octets, for_messages, held.octets, held.messages)
  on conflict (domain_id) do update
    set quota_octets = excluded.quota_octets, quota_messages = excluded.quota_messages,
        octets = excluded.octets, message_count = excluded.message_count;
end $$;

-- As before, with the owner's rights as before.
create or replace function make_moving_user(for_domain integer, name text) returns void
language plpgsql security definer as $$
begin
  if exists (
    select from old_servers o where o.domain_id = for_domain and o.makes_users
  ) then
    insert into users (domain_id, local_part) values (for_domain, lower(name collate "C"))
    on conflict do nothing;
  end if;
end $$;

-- A function that is replaced has its settings no longer.
do $$
begin
  execute format('alter function make_moving_user(integer, text) set search_path = %I, pg_temp',
                 current_schema());
end $$;

-- As before, each table by domain on its own.
create or replace view user_usage as
select u.domain_id, u.user_id, d.name as domain, u.local_part || '@' || d.name as address,
  coalesce(m.message_count, 0) as held_messages, coalesce(m.octets, 0) as held_octets,
  coalesce(t.messages, 0) as undoable_messages, coalesce(t.octets, 0) as undoable_octets,
  u.quota_messages, u.quota_octets
from users u
  join domains d on d.domain_id = u.domain_id
  left join maildrops m on m.domain_id = u.domain_id and m.user_id = u.user_id
  left join (
    select t.domain_id, t.user_id, count(*) as messages, sum(t.octets)::bigint as octets from trash t
    group by t.domain_id, t.user_id
  ) t on t.domain_id = u.domain_id and t.user_id = u.user_id;

create or replace view domain_usage as
select d.domain_id, d.name as domain, coalesce(m.messages, 0) as held_messages,
  coalesce(m.octets, 0) as held_octets, coalesce(t.messages, 0) as undoable_messages,
  coalesce(t.octets, 0) as undoable_octets, q.quota_messages, q.quota_octets
from domains d
  left join domain_quotas q on q.domain_id = d.domain_id
  left join (
    select m.domain_id, sum(m.message_count)::bigint as messages, sum(m.octets)::bigint as octets
    from maildrops m group by m.domain_id
  ) m on m.domain_id = d.domain_id
  left join (
    select t.domain_id, count(*) as messages, sum(t.octets)::bigint as octets from trash t
    group by t.domain_id
  ) t on t.domain_id = d.domain_id;

comment on function recipients(text, text) is
  'who gets the mail for an address: what nodes ask at RCPT; find_recipients is for people';

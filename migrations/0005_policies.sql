-- lowest-node-version: 0.1.0
-- EXPIRE carried out, and what failed logins left forgotten: functions for nodes and for people who
-- manage by SQL.

-- Of each user that differs from its domain: CAPA before login tells of all at once.
create index users_with_policy on users (domain_id)
  where login_delay_seconds is not null or expire_days is not null;

-- Moves messages to the trash as QUIT does, holding the maildrop's lease meanwhile. Returns how many
-- there were; null: the maildrop is open in a session.
create function discard_messages(for_domain integer, for_user bigint, uids integer[]) returns integer
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

-- As before, by the function above.
create or replace function delete_messages(address text, uids integer[]) returns integer
language plpgsql as $$
declare
  who record;
  deleted_count integer;
begin
  who := find_user(address);
  deleted_count := discard_messages(who.domain_id, who.user_id, uids);
  if deleted_count is null then
    raise exception 'the maildrop of % is open in a session', address
      using errcode = 'object_in_use', hint = format('select kick(%L) ends it', address);
  end if;
  return deleted_count;
end $$;

-- Moves messages of a domain that are older than expire_days (the user's, else the domain's) to the
-- trash, at most `at_most`; maildrops that are open are left for the next time. Maildrops are locked
-- in the order of a delivery (user_id), so the two never deadlock. Returns how many were moved.
create function expire_messages(for_domain integer, at_most integer) returns integer
language plpgsql as $$
declare
  due record;
  total integer := 0;
begin
  for due in
    select old.user_id, array_agg(old.uid) as uids
    from (
      select m.user_id, m.uid
      from (
        select u.user_id, coalesce(u.expire_days, d.expire_days) as days
        from domains d join users u on u.domain_id = d.domain_id
        where d.domain_id = for_domain and u.domain_id = for_domain
      ) p
      join messages m on m.domain_id = for_domain and m.user_id = p.user_id
      where p.days > 0 and m.received_at <= now() - make_interval(days => p.days)
        and not exists (
          select from sessions s join nodes n on n.node_id = s.node_id
          where s.domain_id = for_domain and s.user_id = m.user_id
            and n.heartbeat_at > now() - interval '30 s')
      order by m.user_id, m.uid limit at_most
    ) old
    group by old.user_id order by old.user_id
  loop
    total := total + coalesce(discard_messages(for_domain, due.user_id, due.uids), 0);
  end loop;
  return total;
end $$;

-- Forgets failed logins: of an address, a domain or a network, as `popgres throttle list` names it;
-- of all without an argument. Returns how many rows there were.
create function clear_throttle(subject text default null) returns integer
language plpgsql as $$
declare
  cleared integer;
begin
  delete from throttles t
  where t.key <> 'proof-key'
    and (subject is null or lower(subject) = any ((string_to_array(t.key, ' '))[2:]));
  get diagnostics cleared = row_count;
  return cleared;
end $$;

comment on function discard_messages(integer, bigint, integer[]) is
  'moves messages to the trash, counters kept; null: the maildrop is open';
comment on function expire_messages(integer, integer) is
  'moves messages that are older than expire_days to the trash; returns how many';
comment on function clear_throttle(text) is
  'forgets failed logins of an address, domain or network (none: of all); returns how many rows';

-- lowest-node-version: 0.1.0
-- Functions for people who manage by SQL (docs/sql.md). Messages are removed through them only: a
-- bare DELETE would leave the maildrop's counters wrong and take mail from under an open session.
-- Addresses and domain names are taken in any case; an unknown one is an error (no_data_found).

-- Whose address it is. Not for the hot path: see accounts.ts.
create function find_user(address text, out domain_id integer, out user_id bigint)
language plpgsql stable as $$
begin
  select u.domain_id, u.user_id into find_user.domain_id, find_user.user_id
  from domains d join users u on u.domain_id = d.domain_id
  where d.name = lower(split_part(address collate "C", '@', -1))
    and lower(u.local_part) = lower(regexp_replace(address collate "C", '@[^@]*$', ''))
    and position('@' in address) > 0;
  if find_user.user_id is null then
    raise exception 'there is no user with the address %', address using errcode = 'no_data_found';
  end if;
end $$;

create function find_domain(domain_name text) returns integer
language plpgsql stable as $$
declare
  found_id integer;
begin
  select d.domain_id into found_id from domains d where d.name = lower(domain_name collate "C");
  if found_id is null then
    raise exception 'there is no domain %', domain_name using errcode = 'no_data_found';
  end if;
  return found_id;
end $$;

-- Ends the user's open session within one heartbeat; it deletes nothing, whatever it had marked.
-- False: none was open.
create function kick(address text) returns boolean
language plpgsql as $$
declare
  who record;
begin
  who := find_user(address);
  delete from sessions s where s.domain_id = who.domain_id and s.user_id = who.user_id;
  return found;
end $$;

-- Moves messages to the trash as QUIT does, holding the maildrop's lease meanwhile. uids are those of
-- messages.uid; one that is not there is passed over. Returns how many were deleted. An open session
-- is an error (object_in_use): wait for its end, or kick it.
create function delete_messages(address text, uids integer[]) returns integer
language plpgsql as $$
declare
  who record;
  own_session constant uuid := gen_random_uuid();
  own_node constant uuid := '00000000-0000-0000-0000-000000000000';
  dead_nodes constant uuid[] := array(
    select n.node_id from nodes n where n.heartbeat_at <= now() - interval '30 s');
  deleted_count integer;
begin
  who := find_user(address);
  insert into sessions as s (domain_id, user_id, session_id, node_id, client, since)
  values (who.domain_id, who.user_id, own_session, own_node, 'sql', now())
  on conflict (domain_id, user_id) do update
    set session_id = excluded.session_id, node_id = excluded.node_id, client = excluded.client,
        since = excluded.since
    where s.node_id = any (dead_nodes);
  if not found then
    raise exception 'the maildrop of % is open in a session', address
      using errcode = 'object_in_use', hint = format('select kick(%L) ends it', address);
  end if;

  with gone as (
    delete from messages m
    where m.domain_id = who.domain_id and m.user_id = who.user_id and m.uid = any (uids)
    returning m.uid, m.octets, m.body_id, m.prefix, m.unique_id, m.received_at
  ), kept as (
    insert into trash (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at,
                       session_id, deleted_at)
    select who.domain_id, who.user_id, g.uid, g.octets, g.body_id, g.prefix, g.unique_id,
           g.received_at, own_session, now()
    from gone g
  ), counted as (
    update maildrops d
    set message_count = d.message_count - (select count(*) from gone)::integer,
        octets = d.octets - (select coalesce(sum(g.octets), 0) from gone g)::bigint
    where d.domain_id = who.domain_id and d.user_id = who.user_id
  )
  select count(*) into deleted_count from gone;

  if deleted_count > 0 then
    insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
    values (who.domain_id, who.user_id, own_session, now(), deleted_count);
  end if;
  delete from sessions s
  where s.domain_id = who.domain_id and s.user_id = who.user_id and s.session_id = own_session;
  return deleted_count;
end $$;

-- The user with all mail, trash and records, at once and for good; an open session ends. The bodies
-- follow when the sweep finds that nobody names them (within a day). Locks are taken in the order
-- of a delivery (maildrop, then user), so the two never deadlock.
create function remove_user(address text) returns void
language plpgsql as $$
declare
  who record;
begin
  who := find_user(address);
  delete from sessions s where s.domain_id = who.domain_id and s.user_id = who.user_id;
  perform from maildrops d
    where d.domain_id = who.domain_id and d.user_id = who.user_id for update;
  delete from users u where u.domain_id = who.domain_id and u.user_id = who.user_id;
end $$;

-- The domain with its users and all their mail, at once and for good.
create function remove_domain(domain_name text) returns void
language plpgsql as $$
declare
  gone_id constant integer := find_domain(domain_name);
begin
  delete from sessions s where s.domain_id = gone_id;
  perform from maildrops m where m.domain_id = gone_id order by m.user_id for update;
  -- From here on a delivery that adds a body waits for us and then finds no domain.
  perform from domains d where d.domain_id = gone_id for update;
  delete from users u where u.domain_id = gone_id;
  delete from bodies b where b.domain_id = gone_id;
  delete from domains d where d.domain_id = gone_id;
end $$;

comment on function kick(text) is 'ends the open session of an address; false: none was open';
comment on function delete_messages(text, integer[]) is
  'moves messages of an address to the trash, counters kept; returns how many';
comment on function remove_user(text) is 'removes an address with all its mail, for good';
comment on function remove_domain(text) is 'removes a domain with all its users and mail, for good';

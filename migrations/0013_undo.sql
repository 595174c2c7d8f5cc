-- lowest-node-version: 0.1.0
-- Who took which mail, and putting it back: session_log says more, and is kept for a time; what a
-- session deleted comes back from the trash; what must be forgotten goes at once.

-- One row a session that fetched or deleted something, a partition a month (by UTC), so that what is
-- over is thrown away whole. No key to users: each row's check would rewrite the user's row, and a
-- partition that comes or goes would lock all users; remove_user and remove_domain see to the rows.
-- Columns that may be null are those that nodes of before this migration do not know.
do $$
declare
  this_month constant text := to_char(now() at time zone 'UTC', 'YYYY_MM');
  next_month constant timestamptz :=
    date_trunc('month', now() at time zone 'UTC' + interval '1 month') at time zone 'UTC';
  is_distributed boolean := false;
begin
  if to_regclass('pg_dist_partition') is not null then
    execute 'select exists (select from pg_dist_partition where logicalrelid = $1::regclass)'
      into is_distributed using 'session_log';
  end if;
  alter table session_log drop constraint session_log_pkey;
  alter table session_log
    add column began_at timestamptz,             -- the login
    add column client text,                      -- address of the peer; 'sql': an operator, or expiry
    add column tls text,                         -- its version; 'balancer': it ended there; null: none
    add column mechanism text,                   -- how it logged in: password, apop, scram, bearer, external
    add column credential_id uuid,               -- an app password or certificate; null: the user's own
    add column credential_name text,             -- its name then
    add column reason text,                      -- why it ended; 'quit' with deleted > 0: by it they went
    add column fetched integer not null default 0,   -- messages that were sent whole
    add column octets bigint not null default 0,     -- of these
    -- Uids. Of very many ranges neighbours are joined: then there are more numbers than messages.
    add column fetched_uids int4multirange,
    add column deleted_uids int4multirange;      -- null: not noted; the trash names the session
  execute format('alter table session_log rename to %I', 'session_log_' || this_month);
  create table session_log (
    domain_id        integer not null,
    user_id          bigint not null,
    session_id       uuid not null,
    ended_at         timestamptz not null,
    deleted          integer not null,
    began_at         timestamptz,
    client           text,
    tls              text,
    mechanism        text,
    credential_id    uuid,
    credential_name  text,
    reason           text,
    fetched          integer not null default 0,
    octets           bigint not null default 0,
    fetched_uids     int4multirange,
    deleted_uids     int4multirange,
    primary key (domain_id, user_id, session_id, ended_at)
  ) partition by range (ended_at);
  if is_distributed then
    execute 'select create_distributed_table($1::regclass, $2, colocate_with => $3)'
      using 'session_log', 'domain_id', 'users';
  end if;
  execute format('alter table session_log attach partition %I for values from (minvalue) to (%L)',
                 'session_log_' || this_month, next_month);
  -- What no month is there for yet: nothing, as long as background work comes by once in two months.
  create table session_log_default partition of session_log default;
  alter table session_log_default alter column domain_id set (n_distinct = -0.001);
end $$;

-- A month that begins at `begins` (by UTC). What has gone to the default partition meanwhile moves.
create function make_session_log_month(begins date) returns void
language plpgsql as $$
declare
  name constant text := 'session_log_' || to_char(begins, 'YYYY_MM');
  lower_bound constant timestamptz := begins::timestamp at time zone 'UTC';
  upper_bound constant timestamptz := (begins + interval '1 month') at time zone 'UTC';
begin
  lock table session_log_default in access exclusive mode;
  execute format('create table %I (like session_log including defaults)', name);
  execute format('alter table %I alter column domain_id set (n_distinct = -0.001)', name);
  execute format('with moved as (
      delete from session_log_default where ended_at >= %L and ended_at < %L returning *
    ) insert into %I select * from moved', lower_bound, upper_bound, name);
  -- Not "partition of": that would lock the whole log against every QUIT.
  execute format('alter table session_log attach partition %I for values from (%L) to (%L)',
                 name, lower_bound, upper_bound);
end $$;

-- Makes the partitions of this month and the next two, and throws those away that ended more than
-- `months` ago. It runs with the rights of the tables' owner, for whoever may write the log: nodes own
-- nothing. Returns how many partitions went. It waits for no lock longer than a moment, as QUITs wait
-- behind it; what it does not get is left for the next time.
create function keep_session_log(months integer) returns integer
language plpgsql security definer set lock_timeout = '100ms' as $$
declare
  this_month constant date := date_trunc('month', now() at time zone 'UTC');
  oldest constant date := this_month - make_interval(months => months);
  old_name text;
  dropped integer := 0;
begin
  if not has_table_privilege(session_user, 'session_log', 'insert') then
    raise exception 'permission denied for session_log' using errcode = 'insufficient_privilege';
  elsif months < 1 then
    raise exception 'session_log is kept for 1 month or more'
      using errcode = 'invalid_parameter_value';
  elsif not pg_try_advisory_xact_lock(hashtext('session_log')) then
    return 0;
  end if;
  for ahead in 0..2 loop
    if to_regclass('session_log_'
        || to_char(this_month + make_interval(months => ahead), 'YYYY_MM')) is null then
      perform make_session_log_month((this_month + make_interval(months => ahead))::date);
    end if;
  end loop;
  delete from session_log_default d where d.ended_at < oldest::timestamp at time zone 'UTC';
  begin
    for old_name in
      select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'session_log'::regclass and c.relname ~ '^session_log_\d{4}_\d\d$'
        and c.relname < 'session_log_' || to_char(oldest, 'YYYY_MM')
      order by c.relname
    loop
      execute format('drop table %I', old_name);
      dropped := dropped + 1;
    end loop;
  exception when lock_not_available then
    dropped := 0;
  end;
  return dropped;
end $$;

select make_session_log_month(date_trunc('month', now() at time zone 'UTC' + interval '1 month')::date),
       make_session_log_month(date_trunc('month', now() at time zone 'UTC' + interval '2 months')::date);

-- As before, and the log says which messages they were, and that no client was it.
alter function discard_messages(integer, bigint, integer[]) rename to move_to_trash;

-- Of the rows that this transaction has written about a user. With the owner's rights: nodes may add
-- to the log and change nothing in it.
create function note_discarded(for_domain integer, for_user bigint) returns void
language plpgsql security definer as $$
begin
  update session_log l
  set client = 'sql', began_at = l.ended_at, reason = 'sql', deleted_uids = (
    select range_agg(int4range(t.uid, t.uid, '[]')) from trash t
    where t.domain_id = for_domain and t.user_id = for_user and t.session_id = l.session_id)
  where l.domain_id = for_domain and l.user_id = for_user and l.ended_at = now()
    and l.reason is null;
end $$;

create function discard_messages(for_domain integer, for_user bigint, uids integer[]) returns integer
language plpgsql as $$
declare
  deleted_count constant integer := move_to_trash(for_domain, for_user, uids);
begin
  if deleted_count > 0 then perform note_discarded(for_domain, for_user); end if;
  return deleted_count;
end $$;

-- Names of temporary tables come last: no caller puts its own in their place.
do $$
begin
  execute format('alter function keep_session_log(integer) set search_path = %I, pg_temp',
                 current_schema());
  execute format('alter function note_discarded(integer, bigint) set search_path = %I, pg_temp',
                 current_schema());
end $$;

-- As before, and what the log has of them.
alter function remove_user(text) rename to remove_user_with_mail;

create function remove_user(address text) returns void
language plpgsql as $$
declare
  who record;
begin
  who := find_user(address);
  perform remove_user_with_mail(address);
  delete from session_log l where l.domain_id = who.domain_id and l.user_id = who.user_id;
end $$;

alter function remove_domain(text) rename to remove_domain_with_mail;

create function remove_domain(domain_name text) returns void
language plpgsql as $$
declare
  gone_id constant integer := find_domain(domain_name);
begin
  perform remove_domain_with_mail(domain_name);
  delete from session_log l where l.domain_id = gone_id;
end $$;

-- Puts messages back from the trash: the same uids, so the same unique-ids and the same order, with the
-- counters right. It holds the maildrop's lease meanwhile: a session that is open has its list, and
-- would see it change. A uid that is in the maildrop, or whose imported unique-id is, stays in the
-- trash. Quotas are not asked. Returns how many came back; null: the maildrop is open in a session.
create function put_back(for_domain integer, for_user bigint, uids integer[]) returns integer
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
    select for_domain, for_user, f.uid, f.octets, f.body_id, f.prefix, f.unique_id, f.received_at
    from found f
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

-- What came back counts for the domain's room too, where that is counted (domain_quotas).
create function take_room(for_domain integer, messages integer, octets bigint) returns void
language plpgsql as $$
begin
  update domain_quotas q
  set message_count = q.message_count + take_room.messages, octets = q.octets + take_room.octets
  where q.domain_id = for_domain and take_room.messages > 0;
end $$;

-- What one session deleted, or what was deleted from one time to (not including) another, as far as it
-- lies in the trash. An open session is an error (object_in_use).
create function restore_messages(
  address text, of_session uuid default null, since timestamptz default '-infinity',
  until timestamptz default 'infinity'
) returns integer
language plpgsql as $$
declare
  who record;
  back_count integer;
begin
  who := find_user(address);
  back_count := put_back(who.domain_id, who.user_id, array(
    select t.uid from trash t
    where t.domain_id = who.domain_id and t.user_id = who.user_id
      and (of_session is null or t.session_id = of_session)
      and t.deleted_at >= since and t.deleted_at < until));
  if back_count is null then
    raise exception 'the maildrop of % is open in a session', address
      using errcode = 'object_in_use', hint = format('select kick(%L) ends it', address);
  end if;
  return back_count;
end $$;

-- An error while a legal hold is on the user or its domain: migration 0014 makes them, and this.
create function refuse_if_held(for_domain integer, for_user bigint default null) returns void
language plpgsql as $$
begin
end $$;

-- Those of these bodies that no message and no trash names, at once. Returns how many there were.
create function erase_bodies(for_domain integer, body_ids uuid[]) returns integer
language plpgsql as $$
declare
  erased integer;
begin
  delete from bodies b
  where b.domain_id = for_domain and b.body_id = any (body_ids)
    and not exists (
      select from messages m where m.domain_id = for_domain and m.body_id = b.body_id)
    and not exists (
      select from trash t where t.domain_id = for_domain and t.body_id = b.body_id);
  get diagnostics erased = row_count;
  return erased;
end $$;

-- Messages that must be forgotten, wherever they lie: out of the maildrop, the trash and the bodies at
-- once. A body that others of the domain have received too stays theirs. Returns how many messages
-- there were. An open session is an error (object_in_use).
create function erase_messages(address text, uids integer[]) returns integer
language plpgsql as $$
declare
  who record;
  body_ids uuid[];
begin
  who := find_user(address);
  perform refuse_if_held(who.domain_id, who.user_id);
  if discard_messages(who.domain_id, who.user_id, uids) is null then
    raise exception 'the maildrop of % is open in a session', address
      using errcode = 'object_in_use', hint = format('select kick(%L) ends it', address);
  end if;
  with gone as (
    delete from trash t
    where t.domain_id = who.domain_id and t.user_id = who.user_id and t.uid = any (uids)
    returning t.body_id
  )
  select array_agg(g.body_id) into body_ids from gone g;
  perform erase_bodies(who.domain_id, body_ids);
  return coalesce(cardinality(body_ids), 0);
end $$;

-- A user who must be forgotten: as remove_user, and at once the bodies and what logins have left
-- behind. Returns how many bodies went.
create function erase_user(address text) returns integer
language plpgsql as $$
declare
  who record;
  body_ids uuid[];
begin
  who := find_user(address);
  perform refuse_if_held(who.domain_id, who.user_id);
  delete from sessions s where s.domain_id = who.domain_id and s.user_id = who.user_id;
  perform from maildrops d
    where d.domain_id = who.domain_id and d.user_id = who.user_id for update;
  body_ids := array(
    select m.body_id from messages m
    where m.domain_id = who.domain_id and m.user_id = who.user_id
    union
    select t.body_id from trash t
    where t.domain_id = who.domain_id and t.user_id = who.user_id);
  perform remove_user(address);
  delete from known_networks k where k.domain_id = who.domain_id and k.user_id = who.user_id;
  delete from last_logins l where l.domain_id = who.domain_id and l.user_id = who.user_id;
  perform clear_throttle(address);
  return erase_bodies(who.domain_id, body_ids);
end $$;

comment on function keep_session_log(integer) is
  'makes partitions of session_log for the months to come, drops those older than so many';
comment on function discard_messages(integer, bigint, integer[]) is
  'moves messages to the trash, counters kept; null: the maildrop is open';
comment on function remove_user(text) is 'removes an address with all its mail, for good';
comment on function remove_domain(text) is 'removes a domain with all its users and mail, for good';
comment on function restore_messages(text, uuid, timestamptz, timestamptz) is
  'puts back what a session deleted, or what was deleted in a span of time; returns how many';
comment on function erase_messages(text, integer[]) is
  'forgets messages: maildrop, trash and bodies at once; returns how many';
comment on function erase_user(text) is
  'forgets a user: as remove_user, and the bodies at once; returns how many bodies';

-- Last, as it locks users against every login until the migration is through.
do $$
begin
  execute format('alter table %I drop constraint session_log_domain_id_user_id_fkey',
                 'session_log_' || to_char(now() at time zone 'UTC', 'YYYY_MM'));
end $$;

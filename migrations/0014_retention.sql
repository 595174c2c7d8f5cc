-- lowest-node-version: 0.1.0
-- Legal holds, which node does the background work, and when autovacuum comes to which table.

-- While a hold is on, nothing of the user, or of anybody in the domain, is destroyed: what a QUIT
-- deletes goes to the trash as ever, and the trash is not purged; messages do not expire; users and
-- domains are not removed. QUIT itself asks nothing: it destroys nothing.
create table legal_holds (
  domain_id  integer not null references domains,
  hold_id    uuid not null default gen_random_uuid(),
  user_id    bigint,                           -- null: the whole domain, those who come later too
  reason     text not null,
  since      timestamptz not null default now(),
  primary key (domain_id, hold_id),
  constraint legal_holds_reason_is_1_to_500_characters check (
    length(reason) between 1 and 500 and reason !~ '[[:cntrl:]]')
);
create unique index legal_holds_user_key on legal_holds (domain_id, user_id)
  where user_id is not null;
create unique index legal_holds_domain_key on legal_holds (domain_id) where user_id is null;

-- A row for each user and hold: its key refuses `delete from users`, whoever says it. There are no
-- triggers on tenant tables, so users who come into a held domain later get theirs from the
-- background work, within minutes; remove_user asks legal_holds itself.
create table held_users (
  domain_id  integer not null,
  user_id    bigint not null,
  hold_id    uuid not null,
  primary key (domain_id, user_id, hold_id),
  foreign key (domain_id, user_id) references users,
  foreign key (domain_id, hold_id) references legal_holds on delete cascade
);
create index held_users_by_hold on held_users (hold_id, domain_id);

-- See 0008_cost.sql.
alter table legal_holds alter column domain_id set (n_distinct = -0.001);
alter table held_users alter column domain_id set (n_distinct = -0.001);

-- @param subject an address or a domain. One hold each: what has one already is refused.
create function set_hold(subject text, reason text) returns uuid
language plpgsql as $$
declare
  for_domain integer;
  for_user bigint;
  new_id uuid;
begin
  if position('@' in subject) > 0 then
    select f.domain_id, f.user_id into for_domain, for_user from find_user(subject) f;
  else
    for_domain := find_domain(subject);
  end if;
  insert into legal_holds (domain_id, user_id, reason)
  values (for_domain, for_user, set_hold.reason)
  returning hold_id into new_id;
  insert into held_users (domain_id, user_id, hold_id)
  select u.domain_id, u.user_id, new_id from users u
  where u.domain_id = for_domain and (for_user is null or u.user_id = for_user);
  return new_id;
end $$;

-- From then on the trash is purged again. False: no hold was on.
create function release_hold(subject text) returns boolean
language plpgsql as $$
declare
  for_domain integer;
  for_user bigint;
begin
  if position('@' in subject) > 0 then
    select f.domain_id, f.user_id into for_domain, for_user from find_user(subject) f;
    delete from legal_holds h where h.domain_id = for_domain and h.user_id = for_user;
  else
    for_domain := find_domain(subject);
    delete from legal_holds h where h.domain_id = for_domain and h.user_id is null;
  end if;
  return found;
end $$;

-- For whatever destroys mail: an error while a hold is on the user or its domain; without a user,
-- on the domain or on anybody in it.
create or replace function refuse_if_held(for_domain integer, for_user bigint default null) returns void
language plpgsql as $$
declare
  held record;
begin
  select h.reason, h.since into held from legal_holds h
  where h.domain_id = for_domain
    and (for_user is null or h.user_id is null or h.user_id = for_user)
  order by h.since limit 1;
  if found then
    raise exception 'under a legal hold since %: %', held.since, held.reason
      using errcode = 'restrict_violation', constraint = 'held_users_domain_id_user_id_fkey',
            hint = 'release_hold(subject) ends it';
  end if;
end $$;

-- What these two did so far they do where no hold is on.
alter function remove_user(text) rename to remove_unheld_user;
alter function delete_messages(text, integer[]) rename to delete_unheld_messages;

create function remove_user(address text) returns void
language plpgsql as $$
declare
  who record;
begin
  who := find_user(address);
  perform refuse_if_held(who.domain_id, who.user_id);
  perform remove_unheld_user(address);
end $$;

create function delete_messages(address text, uids integer[]) returns integer
language plpgsql as $$
declare
  who record;
begin
  who := find_user(address);
  perform refuse_if_held(who.domain_id, who.user_id);
  return delete_unheld_messages(address, uids);
end $$;

-- As before, but for those under a hold. What a lease means is asked as in discard_messages: the list of
-- dead nodes first, so that no statement is about both nodes and leases, which may lie elsewhere.
create or replace function expire_messages(for_domain integer, at_most integer) returns integer
language plpgsql as $$
declare
  dead_nodes constant uuid[] := array(
    select n.node_id from nodes n where n.heartbeat_at <= now() - interval '30 s');
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
          and not exists (
            select from legal_holds h where h.domain_id = for_domain and h.user_id is null)
          and not exists (
            select from legal_holds h
            where h.domain_id = for_domain and h.user_id = u.user_id)
      ) p
      join messages m on m.domain_id = for_domain and m.user_id = p.user_id
      where p.days > 0 and m.received_at <= now() - make_interval(days => p.days)
        and not exists (
          select from sessions s
          where s.domain_id = for_domain and s.user_id = m.user_id
            and s.node_id <> all (dead_nodes))
      order by m.user_id, m.uid limit at_most
    ) old
    group by old.user_id order by old.user_id
  loop
    total := total + coalesce(discard_messages(for_domain, due.user_id, due.uids), 0);
  end loop;
  return total;
end $$;

-- Who does the background work. The row is a lease by the database's clock: who has not renewed it
-- for long loses it to whoever asks next. No session lock of PostgreSQL: PgBouncer has no sessions.
create table leaders (
  task        text primary key,
  holder      uuid not null,                   -- made up by the process, anew each time
  hostname    text not null,
  pid         integer not null,
  since       timestamptz not null,
  renewed_at  timestamptz not null
) with (fillfactor = 50);

-- Autovacuum comes when a fifth of a table is dead, unless told otherwise; of a large one that is much
-- room for nothing. Where rows come and go, it comes at a fiftieth: what was deleted is room for new
-- mail while the vacuum is still cheap, and a table keeps the size of what lies in it
-- (docs/performance.md has a month of it).
alter table messages set (autovacuum_vacuum_scale_factor = 0.02);
alter table trash set (autovacuum_vacuum_scale_factor = 0.02);
alter table bodies set (autovacuum_vacuum_scale_factor = 0.02);
alter table body_chunks set (autovacuum_vacuum_scale_factor = 0.02);
-- Small, and each login writes and deletes a row: whenever autovacuum looks, and without its pauses.
alter table sessions set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_cost_delay = 0);

-- What a node may besides what the function so far grants.
alter function grant_serving(text) rename to grant_mail_serving;

create function grant_serving(role_name text) returns void
language plpgsql as $$
declare
  grants constant text[] := array[
    'grant select on legal_holds to %1$I',
    'grant select, insert on held_users to %1$I',
    'grant select, insert, update, delete on leaders to %1$I'];
  statement text;
begin
  perform grant_mail_serving(role_name);
  foreach statement in array grants loop
    execute format(statement, role_name);
  end loop;
end $$;

comment on function set_hold(text, text) is
  'puts an address or a domain under a legal hold: nothing of it is destroyed';
comment on function release_hold(text) is 'ends a legal hold; false: none was on';
comment on function refuse_if_held(integer, bigint) is 'an error while a legal hold is on';
comment on function grant_serving(text) is 'lets a role do what popgres serve does, and no more';
comment on function delete_messages(text, integer[]) is
  'moves messages of an address to the trash, counters kept; returns how many';
comment on function remove_user(text) is 'removes an address with all its mail, for good';

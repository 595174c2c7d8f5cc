-- lowest-node-version: 0.1.0
-- Moving in without a weekend: a domain with a row in old_servers is migrating. Who has no password here
-- has not moved yet, or is not made yet: the first login is shown to the old POP3 server, the maildrop
-- is copied, and then the password is kept. Nodes of the version before know nothing of it and refuse
-- such users, as they refuse everybody without a password.
create table old_servers (
  domain_id       integer primary key references domains on delete cascade,
  host            text not null,
  port            integer not null,
  security        text not null default 'tls',
  authority       text,                        -- PEM: who signs its certificate; null: who is known
  user_format     text not null default 'full', -- what it calls a user: alice@example.com, or alice
  makes_users     boolean not null default true, -- whom it lets in is made here, if missing
  connections_max integer not null default 20, -- to it, of all nodes together
  since           timestamptz not null default now(),
  constraint old_servers_host_is_a_name_or_address check (host ~ '^[0-9A-Za-z:.-]{1,253}$'),
  constraint old_servers_port_is_1_to_65535 check (port between 1 and 65535),
  constraint old_servers_security_is_known check (security in ('tls', 'stls', 'none')),
  constraint old_servers_user_format_is_known check (user_format in ('full', 'local')),
  constraint old_servers_connections_max_is_1_to_1000 check (connections_max between 1 and 1000)
);

comment on table old_servers is 'domains that are migrating, and the POP3 server they come from';

-- Makes the user whom the old server has let in, without a password; says nothing of one who is there.
-- With the owner's rights, as nodes may make no users otherwise: only of a domain that migrates.
create function make_moving_user(for_domain integer, name text) returns void
language sql security definer as $$
  insert into users (domain_id, local_part)
  select for_domain, lower(name collate "C") from old_servers o
  where o.domain_id = for_domain and o.makes_users
  on conflict do nothing
$$;

-- Temporary tables last: whoever may make some must not have the owner write to them.
do $$
begin
  execute format('alter function make_moving_user(integer, text) set search_path = %I, pg_temp',
                 current_schema());
end $$;

revoke execute on function make_moving_user(integer, text) from public;
comment on function make_moving_user(integer, text) is
  'makes a user of a domain that migrates, without a password';

-- What it did so far, and what moving users needs: messages with their unique-ids and the ledger.
alter function grant_serving(text) rename to grant_serving_without_moves;

create function grant_serving(role_name text) returns void
language plpgsql as $$
declare
  grants constant text[] := array[
    'grant select on old_servers to %1$I',
    'grant execute on function make_moving_user(integer, text) to %1$I',
    'grant update (has_unique_ids) on maildrops to %1$I',
    'grant select, insert on imported to %1$I'];
  statement text;
begin
  perform grant_serving_without_moves(role_name);
  foreach statement in array grants loop
    execute format(statement, role_name);
  end loop;
end $$;

comment on function grant_serving(text) is 'lets a role do what popgres serve does, and no more';

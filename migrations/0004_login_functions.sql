-- lowest-node-version: 0.1.0
-- Functions for people who manage credentials by SQL (docs/sql.md), and for popgres credential.

-- An app password or a client certificate for a user, who may have 50 of them.
create function add_credential(address text, kind text, name text, digest bytea,
                               expires_at timestamptz default null, networks cidr[] default null)
returns uuid
language plpgsql as $$
declare
  who record;
  new_id uuid;
begin
  who := find_user(address);
  -- One at a time for each user, so that the count is right.
  perform from users u
    where u.domain_id = who.domain_id and u.user_id = who.user_id for no key update;
  if (select count(*) from credentials c
      where c.domain_id = who.domain_id and c.user_id = who.user_id) >= 50 then
    raise exception '% has 50 credentials: revoke one first', address
      using errcode = 'program_limit_exceeded';
  end if;
  insert into credentials (domain_id, user_id, kind, name, digest, expires_at, networks)
  values (who.domain_id, who.user_id, add_credential.kind, add_credential.name,
          add_credential.digest, add_credential.expires_at, add_credential.networks)
  returning credential_id into new_id;
  return new_id;
end $$;

-- Makes up an app password and returns it; only its digest is kept. 24 signs of base32 (120 random
-- bits) in groups of four: blanks, hyphens and case do not count when it is typed.
create function add_app_password(address text, name text, expires_at timestamptz default null,
                                 networks cidr[] default null)
returns text
language plpgsql as $$
declare
  random_octets constant bytea :=
    sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
  secret constant text := (
    select string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', 1 + five.bits, 1), '' order by at)
    from generate_series(0, 23) at
    cross join lateral (
      select sum(get_bit(random_octets, 5 * at + i) << i)::integer as bits
      from generate_series(0, 4) i) five);
begin
  perform add_credential(address, 'app-password', name, sha256(convert_to(secret, 'UTF8')),
                         expires_at, networks);
  return regexp_replace(secret, '(.{4})(?!$)', '\1-', 'g');
end $$;

-- The session that it opened ends within one heartbeat. False: the user has none of that name.
create function revoke_credential(address text, name text) returns boolean
language plpgsql as $$
declare
  who record;
  gone_id uuid;
begin
  who := find_user(address);
  delete from credentials c
  where c.domain_id = who.domain_id and c.user_id = who.user_id
    and c.name = revoke_credential.name
  returning c.credential_id into gone_id;
  delete from sessions s
  where s.domain_id = who.domain_id and s.user_id = who.user_id and s.credential_id = gone_id;
  return gone_id is not null;
end $$;

comment on function add_credential(text, text, text, bytea, timestamptz, cidr[]) is
  'adds an app password or certificate by its SHA-256';
comment on function add_app_password(text, text, timestamptz, cidr[]) is
  'makes up an app password for an address and returns it, once';
comment on function revoke_credential(text, text) is
  'takes an app password or certificate away; false: there was none of that name';

-- lowest-node-version: 0.1.0
-- A first login makes no user over an address that is somebody's already: an alias, or a tagged address.
-- Such a user would come before them and take their mail.

-- As before, with the owner's rights as before; what other_recipients finds, the catch-all aside, is not
-- made. One table at a time, each by domain.
create or replace function make_moving_user(for_domain integer, name text) returns void
language plpgsql security definer as $$
declare
  wanted constant text := lower(name collate "C");
  names text[] := array[wanted];
  in_domain integer;
  tag_sign text;
begin
  if not exists (
    select from old_servers o where o.domain_id = for_domain and o.makes_users
  ) then
    return;
  end if;
  select coalesce(d.alias_of, d.domain_id) into in_domain from domains d
  where d.domain_id = for_domain;
  select d.separator into tag_sign from domains d where d.domain_id = in_domain;
  if strpos(wanted, tag_sign) > 1 then
    names := names || split_part(wanted, tag_sign, 1);
  end if;
  if exists (
    select from users u where u.domain_id = in_domain and lower(u.local_part) = any (names)
  ) or exists (
    select from aliases a where a.domain_id = in_domain and a.local_part = any (names)
  ) then
    return;
  end if;
  insert into users (domain_id, local_part) values (for_domain, wanted) on conflict do nothing;
end $$;

-- A function that is replaced has its settings no longer.
do $$
begin
  execute format('alter function make_moving_user(integer, text) set search_path = %I, pg_temp',
                 current_schema());
end $$;

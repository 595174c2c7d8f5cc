-- lowest-node-version: 0.1.0
-- Months of the log are kept on several servers too (Citus), which what 0019_held_log.sql asks refused.

-- As there; but what is asked of a whole month has a column. Citus keeps what such a subquery finds as
-- a table, and knows none without columns.
create or replace function keep_session_log(months integer) returns integer
language plpgsql security definer set lock_timeout = '100ms' as $$
declare
  this_month constant date := date_trunc('month', now() at time zone 'UTC');
  oldest constant date := this_month - make_interval(months => months);
  is_held constant text := 'exists (
    select from legal_holds h
    where h.domain_id = l.domain_id and (h.user_id is null or h.user_id = l.user_id))';
  over constant text[] := array(
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'session_log'::regclass and c.relname ~ '^session_log_\d{4}_\d\d$'
      and c.relname < 'session_log_' || to_char(oldest, 'YYYY_MM')
    order by c.relname);
  held text[] := array['session_log_default'];
  name text;
  has_held boolean;
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
  foreach name in array over loop
    execute format('select exists (select 1 from %I l where %s)', name, is_held) into has_held;
    if has_held then held := held || name; end if;
  end loop;
  foreach name in array held loop
    execute format('delete from %I l where l.ended_at < $1 and not %s', name, is_held)
      using oldest::timestamp at time zone 'UTC';
  end loop;
  for ahead in 0..2 loop
    if to_regclass('session_log_'
        || to_char(this_month + make_interval(months => ahead), 'YYYY_MM')) is null then
      perform make_session_log_month((this_month + make_interval(months => ahead))::date);
    end if;
  end loop;
  begin
    foreach name in array over loop
      continue when name = any (held);
      execute format('drop table %I', name);
      dropped := dropped + 1;
    end loop;
  exception when lock_not_available then
    dropped := 0;
  end;
  return dropped;
end $$;

-- Names of temporary tables come last: no caller puts its own in their place.
do $$
begin
  execute format('alter function keep_session_log(integer) set search_path = %I, pg_temp',
                 current_schema());
end $$;

-- lowest-node-version: 0.1.0
-- A limit for the messages of a user, beside that of octets; and what users and domains have, for whoever
-- asks by SQL.

alter table users
  add column quota_messages integer,                    -- null: no limit
  -- Not valid: all rows have null, and looking would keep logins waiting.
  add constraint users_quota_messages_not_negative check (quota_messages >= 0) not valid;

-- What each user has: held in the maildrop, where it counts against the quota, and undoable in the
-- trash, where it does not.
create view user_usage as
select u.domain_id, u.user_id, d.name as domain, u.local_part || '@' || d.name as address,
  coalesce(m.message_count, 0) as held_messages, coalesce(m.octets, 0) as held_octets,
  coalesce(t.messages, 0) as undoable_messages, coalesce(t.octets, 0) as undoable_octets,
  u.quota_messages, u.quota_octets
from users u
  join domains d on d.domain_id = u.domain_id
  left join maildrops m on m.domain_id = u.domain_id and m.user_id = u.user_id
  left join lateral (
    select count(*) as messages, sum(t.octets)::bigint as octets from trash t
    where t.domain_id = u.domain_id and t.user_id = u.user_id
  ) t on true;

create view domain_usage as
select d.domain_id, d.name as domain, coalesce(m.messages, 0) as held_messages,
  coalesce(m.octets, 0) as held_octets, coalesce(t.messages, 0) as undoable_messages,
  coalesce(t.octets, 0) as undoable_octets, q.quota_messages, q.quota_octets
from domains d
  left join domain_quotas q on q.domain_id = d.domain_id
  left join lateral (
    select sum(m.message_count)::bigint as messages, sum(m.octets)::bigint as octets
    from maildrops m where m.domain_id = d.domain_id
  ) m on true
  left join lateral (
    select count(*) as messages, sum(t.octets)::bigint as octets from trash t
    where t.domain_id = d.domain_id
  ) t on true;

comment on view user_usage is 'what each user holds, what can be undone, and the quota';
comment on view domain_usage is 'what each domain holds, what can be undone, and the quota';

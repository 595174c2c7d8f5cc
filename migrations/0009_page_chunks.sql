-- lowest-node-version: 0.1.0
-- A chunk of a body is a row that fills one page of the table, and is kept there: nothing of it goes
-- to the TOAST table, from which PostgreSQL fetched a message as pieces of 2 KB and joined them anew for
-- each reader. A page has 8,192 octets: 24 are its header, 4 point to the row, and of the rest 8,160
-- hold a row. 24 of those are the row's header, 24 domain_id, body_id and seq, 4 the length of data:
-- 8,108 may be data. 8,096 are used, so that a column may come later.
-- toast_tuple_target 8160 lets rows of that length stay whole; they are never compressed (external).
-- Measured with mail of 10 KB: reading a message from PostgreSQL 11 us before and 7.7 now; WAL an octet
-- 1.117 and 1.052, disk 1.225 and 1.075.
--
-- Bodies that are there are cut anew, which takes free space for two copies of them. What is missing of
-- a damaged one stays missing: `popgres check` names it as before.
create temporary table old_chunks on commit drop as
  select domain_id, body_id, seq, data from body_chunks;
create unique index old_chunks_key on old_chunks (domain_id, body_id, seq);
truncate body_chunks;

alter table body_chunks
  set (toast_tuple_target = 8160),
  alter column data set storage external,
  drop constraint body_chunks_is_1_to_262144_octets,
  add constraint body_chunks_is_1_to_8096_octets check (octet_length(data) between 1 and 8096);

-- Each new chunk comes from the old one in which it begins, and ends in the next one if it has to.
insert into body_chunks (domain_id, body_id, seq, data)
select o.domain_id, o.body_id, n.seq,
  substr(o.data, n.at, 8096) || case
    when octet_length(o.data) = 262144 and n.at + 8095 > 262144 then coalesce((
      select substr(later.data, 1, n.at + 8095 - 262144) from old_chunks later
      where later.domain_id = o.domain_id and later.body_id = o.body_id
        and later.seq = o.seq + 1), '')
    else '' end
from (
    -- Decompressed and joined once, not for each piece.
    select domain_id, body_id, seq, data || '' as data from old_chunks offset 0
  ) o
  cross join lateral (
    select seq, seq * 8096 - o.seq * 262144 + 1 as at
    from generate_series((o.seq * 262144 + 8095) / 8096,
                         (o.seq * 262144 + octet_length(o.data) - 1) / 8096) as seq
  ) n;

-- Each chunk's foreign key is checked, and in a table that is empty or that nobody has analyzed yet this
-- index seemed as good for that as the primary key: all bodies of the domain were read for each. With
-- this condition it serves only who asks for created_at.
drop index bodies_by_age;
create index bodies_by_age on bodies (domain_id, created_at) where created_at is not null;

-- Not an empty one, see 0008_cost.sql.
do $$
begin
  if exists (select from body_chunks) then analyze body_chunks; end if;
end $$;

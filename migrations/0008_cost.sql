-- lowest-node-version: 0.1.0
-- Statements are planned once for all domains. Where most domains have one user and a few have
-- thousands, the statistics say that domain_id alone finds a row or two, and plans would read a whole
-- domain to find one user. So they are told to take a domain for a thousandth of the table's rows; then
-- the whole key is looked up. Measured with 1,000 users in one domain of 4,001: blocks read by the
-- statement that keeps SCRAM keys 213 and 3, by a recipient's look-up 25 and 9.
alter table users alter column domain_id set (n_distinct = -0.001);
alter table credentials alter column domain_id set (n_distinct = -0.001);
alter table maildrops alter column domain_id set (n_distinct = -0.001);
alter table messages alter column domain_id set (n_distinct = -0.001);
alter table bodies alter column domain_id set (n_distinct = -0.001);
alter table body_chunks alter column domain_id set (n_distinct = -0.001);
alter table trash alter column domain_id set (n_distinct = -0.001);
alter table sessions alter column domain_id set (n_distinct = -0.001);
alter table session_log alter column domain_id set (n_distinct = -0.001);
alter table imported alter column domain_id set (n_distinct = -0.001);
alter table known_networks alter column domain_id set (n_distinct = -0.001);
alter table last_logins alter column domain_id set (n_distinct = -0.001);

-- body_id first: with domain_id first, a plan made on a young table took this index for the messages
-- of a user and read all of the domain's.
drop index messages_by_body, trash_by_body;
create index messages_by_body on messages (body_id, domain_id);
create index trash_by_body on trash (body_id, domain_id);

-- QUIT moves messages to the trash, and each row's check of this key locked, and so rewrote, the row of
-- its body: half of what a QUIT of 100 deletes took (2.1 ms, now 1.1). A body that a trash row names
-- is removed by nobody: the sweep asks for both tables in one statement, and its own statement is
-- checked against messages.
alter table trash drop constraint trash_domain_id_body_id_fkey;

-- A vacuum that gives the end of an emptied table back locks it: logins of that moment would be told
-- that the maildrop is in use.
alter table sessions set (vacuum_truncate = off);

-- The figures above are taken over by the next ANALYZE. Not of a table without rows: PostgreSQL takes
-- one that it has never looked into for ten pages, but one that it knows to be empty for a row or none;
-- then any index seems as good as any other, and a plan made before the first rows came read the whole
-- domain for one message until autovacuum came by.
do $$
declare
  name text;
  has_rows boolean;
begin
  foreach name in array array['users', 'credentials', 'maildrops', 'messages', 'bodies', 'body_chunks',
      'trash', 'sessions', 'session_log', 'imported', 'known_networks', 'last_logins'] loop
    execute format('select exists (select from %I)', name) into has_rows;
    if has_rows then execute format('analyze %I', name); end if;
  end loop;
end $$;

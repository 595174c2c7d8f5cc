-- lowest-node-version: 0.1.0
-- How the octets of bodies are stored: by lz4 where the server has it (0001 sees to that), as they are
-- elsewhere. pglz, the only other way, costs more than it saves. Measured with 10 KB of mail, CPU of
-- the backend a message and octets kept:
--
--             text mail: insert  read      kept      base64: insert  read      kept
--   pglz                 142 us  37 us     7,668               87 us  30 us    10,240
--   as it is              47 us  29 us    10,240               47 us  29 us    10,240
--   lz4                   53 us  33 us     7,313               50 us  32 us    10,240
--
-- Bodies that are there stay as they are and are read as before.
do $$
begin
  if not exists (select from pg_attribute
                 where attrelid = 'body_chunks'::regclass and attname = 'data'
                   and attcompression = 'l') then
    alter table body_chunks alter column data set storage external;
  end if;
end $$;

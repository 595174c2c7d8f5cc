-- Run once, with the empty database: the role that nodes log in as. What it may do, and the defaults of
-- its connections, come with `popgres migrate --serve-role popgres_node`.
\set password `cat /run/secrets/node_password`
create role popgres_node login password :'password';

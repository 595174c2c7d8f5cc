-- lowest-node-version: 0.1.0
-- Which server holds a domain, as a number of no other meaning. One PostgreSQL holds them all;
-- `popgres migrate --citus` makes the function anew. Nodes ask when one of the servers is away.
create function domain_holder(of_domain integer) returns integer
language sql stable as 'select 0';

comment on function domain_holder(integer) is 'which server holds a domain, if there are several';

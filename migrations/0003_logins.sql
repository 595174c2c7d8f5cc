-- lowest-node-version: 0.1.0
-- Logins: policies of a domain, more credentials, certificates, and what throttling remembers.
-- Only adds: nodes of before this migration go on working beside newer ones.

-- What a domain's or user's clients may do. LOGIN-DELAY and EXPIRE are RFC 2449 §6.5 and §6.7.
alter table domains
  add column login_delay_seconds integer not null default 0,
  add column expire_days integer,                            -- null: never
  -- What a login meets while the maildrop is open elsewhere: [IN-USE] at once, a short wait, or a wait
  -- in which a session that was idle for a minute ends.
  add column second_login text not null default 'refuse',
  add constraint domains_login_delay_is_0_to_86400_seconds check (login_delay_seconds between 0 and 86400),
  add constraint domains_expire_is_1_to_36500_days check (expire_days between 1 and 36500),
  add constraint domains_second_login_is_known check (second_login in ('refuse', 'wait', 'take-over'));

alter table users
  add column login_delay_seconds integer,                    -- null: the domain's
  add column expire_days integer,                            -- null: the domain's; 0: never
  add column main_password_allowed boolean not null default true,  -- false: POP3 takes app passwords only
  add column scram_keys bytea,           -- RFC 5803 text, encrypted like apop_secret; null: none derived yet
  add constraint users_login_delay_is_0_to_86400_seconds check (login_delay_seconds between 0 and 86400),
  add constraint users_expire_is_0_to_36500_days check (expire_days between 0 and 36500);

-- A hash is of the kinds that mail/auth/schemes knows: argon2id, crypt(3) forms, and Dovecot's {SCHEME}.
alter table users drop constraint users_password_hash_is_argon2id_or_bcrypt;
alter table users add constraint users_password_hash_is_of_a_known_scheme check (
  password_hash ~ '^\$argon2id?\$v=19\$'
  or password_hash ~ '^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$'
  or password_hash ~ '^\$[156]\$[!-~]{1,240}$'
  or password_hash ~* '^\{[a-z0-9-]{3,24}(\.(hex|b64|base64))?\}.' and length(password_hash) <= 512);
create index users_with_scram on users (domain_id) where scram_keys is not null;
create index users_without_scram on users (domain_id) where password_hash is not null and scram_keys is null;

-- App passwords and client certificates: several for each user, each with a name.
create table credentials (
  domain_id      integer not null,
  user_id        bigint not null,
  credential_id  uuid not null default gen_random_uuid(),
  kind           text not null,                 -- 'app-password' or 'certificate'
  name           text not null,
  -- SHA-256 of the app password (120 random bits, so no salt and no slow hash), or of the certificate's DER
  digest         bytea not null,
  expires_at     timestamptz,                   -- null: never
  networks       cidr[],                        -- from where it may be used; null: from everywhere
  created_at     timestamptz not null default now(),
  last_used_at   timestamptz,                   -- to the hour: a poll does not write
  primary key (domain_id, user_id, credential_id),
  foreign key (domain_id, user_id) references users on delete cascade,
  constraint credentials_name_key unique (domain_id, user_id, name),
  constraint credentials_name_is_1_to_64_printable check (name ~ '^[[:print:]]{1,64}$'),
  constraint credentials_kind_is_known check (kind in ('app-password', 'certificate')),
  constraint credentials_digest_is_sha_256 check (octet_length(digest) = 32)
);
create index credentials_by_certificate on credentials (digest) where kind = 'certificate';

-- Random octets that all nodes share and that outlive every POPGRES_SECRET_KEY. They seal nothing.
create table shared_keys (
  purpose  text primary key,
  key      bytea not null
);
-- Of it and the address the salt is made that SCRAM shows for everybody, known or not: a salt that
-- changed with the secret key would tell them apart.
insert into shared_keys (purpose, key)
values ('scram salt', sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));

-- A host name that belongs to a domain: bare user names on it are the domain's.
create table domain_hosts (
  domain_id  integer not null references domains on delete cascade,
  host_name  text collate "C" not null,
  primary key (domain_id, host_name),
  constraint domain_hosts_host_name_is_lower_case check (
    host_name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$'
    and length(host_name) <= 253)
);
create unique index domain_hosts_host_name_key on domain_hosts (host_name);

-- TLS certificates by host name, for all nodes. Those in POPGRES_TLS_DIRECTORY come first.
create table certificates (
  host_name    text collate "C" primary key,
  chain        text not null,                  -- PEM, the host's own certificate first
  private_key  bytea not null,                 -- PEM, encrypted under POPGRES_SECRET_KEY
  updated_at   timestamptz not null default now(),
  constraint certificates_host_name_is_lower_case check (
    host_name ~ '^(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$'
    and length(host_name) <= 253),
  constraint certificates_chain_is_pem check (chain like '-----BEGIN CERTIFICATE-----%' and length(chain) <= 65536)
);

-- Who vouches for a domain's users by OAuth 2.0 (OAUTHBEARER, XOAUTH2). Tokens are JWTs that jwks_uri
-- verifies, or anything that introspection_uri knows; exactly one of the two.
create table oauth_providers (
  domain_id          integer primary key references domains on delete cascade,
  issuer             text not null,
  audience           text,                     -- null: not looked at
  jwks_uri           text,
  introspection_uri  text,
  client_id          text,
  client_secret      bytea,                    -- encrypted under POPGRES_SECRET_KEY
  address_claim      text not null default 'email',
  scope              text,                     -- null: none is asked for
  constraint oauth_providers_one_way_to_verify check (num_nonnulls(jwks_uri, introspection_uri) = 1),
  constraint oauth_providers_urls_are_http check (
    issuer ~ '^https?://' and coalesce(jwks_uri, introspection_uri) ~ '^https?://')
);

-- Failed logins. A row is a key (see mail/auth/throttle.ts) and a count that fades with time; recent holds
-- keyed digests of the last wrong proofs, so that the same one again counts once. A crash forgets it.
create unlogged table throttles (
  key         text collate "C" primary key,
  failures    real not null,
  recent      bytea[] not null,
  updated_at  timestamptz not null
) with (fillfactor = 70);

-- From where a user logged in lately (an IPv4 address, an IPv6 /64), so that others' failures do not lock
-- the user out there. Written when a network is new or was last seen a day ago.
create unlogged table known_networks (
  domain_id  integer not null,
  user_id    bigint not null,
  network    text collate "C" not null,
  seen_at    timestamptz not null,
  primary key (domain_id, user_id, network)
) with (fillfactor = 70);

-- The last login of users who have a LOGIN-DELAY; of no others.
create unlogged table last_logins (
  domain_id     integer not null,
  user_id       bigint not null,
  logged_in_at  timestamptz not null,
  primary key (domain_id, user_id)
) with (fillfactor = 70);

alter table sessions
  add column credential_id uuid,               -- the app password or certificate that opened it
  add column wanted_at timestamptz;            -- another login waits: an idle session gives way

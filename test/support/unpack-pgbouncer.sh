#!/bin/sh
# PgBouncer of Debian 13 for the tests, on a machine with Debian 12, whose own is too old: unpacked with
# its libraries, nothing is installed.
#   unpack-pgbouncer.sh DIRECTORY
#   POPGRES_TEST_PGBOUNCER=DIRECTORY/pgbouncer npm run test:pgbouncer
set -eu
directory=$(mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial" "$1/tree" && cd "$1" && pwd)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" \
  > "$directory/apt/sources.list"
: > "$directory/apt/status"

apt() {
  apt-get -q -o Dir::Etc::sourcelist="$directory/apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$directory/apt/lists" -o Dir::State::status="$directory/apt/status" \
    -o Dir::Cache="$directory/apt/cache" -o APT::Sandbox::User=root "$@"
}

apt update
cd "$directory/apt/cache/archives"
apt download pgbouncer libc6 libaudit1 libcap-ng0 libcap2 libcares2 libevent-2.1-7t64 libpam0g \
  libssl3t64 libsystemd0
for package in ./*.deb; do dpkg -x "$package" "$directory/tree"; done
cd "$directory"
rm -rf apt

libraries=$directory/tree/usr/lib/x86_64-linux-gnu
cat > "$directory/pgbouncer" <<END
#!/bin/sh
exec $libraries/ld-linux-x86-64.so.2 --library-path $libraries $directory/tree/usr/sbin/pgbouncer "\$@"
END
chmod -R a+rX "$directory"
chmod a+x "$directory/pgbouncer"
"$directory/pgbouncer" --version

#!/bin/sh
# A directory for chroot with an MTA of Debian's packages in it. They cannot be installed beside each
# other, and their paths and users are compiled in; so each gets a root of its own, with its programs, the
# libraries they need from this machine, its users, and nothing else. Nothing is installed.
#   make-root.sh DIRECTORY PACKAGE...
set -eu
root=$1
shift
umask 022
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
export DEBIAN_FRONTEND=noninteractive

# With what of their dependencies is not on this machine; a machine that was never asked has no lists.
missing() { apt-get install -s --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p'; }
missing "$@" > "$new/missing" 2>&1 || { apt-get update -qq && missing "$@" > "$new/missing"; }
mkdir "$new/packages" "$new/root"
cd "$new/packages"
apt-get -q -o APT::Sandbox::User=root download $( (cat ../missing; printf '%s\n' "$@") | sort -u) >&2

cd "$new/root"
mkdir -p usr/bin usr/sbin usr/lib usr/lib64 etc dev tmp var/log var/mail var/spool run
for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
ln -s ../run var/run
# Piecewise: some still bring a /lib of their own, which is a link here.
for package in ../packages/*.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink
done
rm -rf usr/share/man usr/share/locale usr/share/doc

# What the package's installation does.
if [ -e usr/sbin/smtpctl ]; then chgrp 94 usr/sbin/smtpctl && chmod 2755 usr/sbin/smtpctl; fi
cp -L /bin/sh usr/bin/sh
own=$(find "$PWD/usr/lib" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
find usr -type f \( -perm -100 -o -name '*.so*' \) |
  LD_LIBRARY_PATH=$own xargs ldd 2>/dev/null |
  sed -n 's/^\t\(.* => \)\{0,1\}\(\/[^ ]*\) (.*/\2/p' | sort -u |
  while read -r library; do
    case $library in "$PWD"/*) continue ;; esac
    mkdir -p ".${library%/*}"
    cp -nL "$library" ".$library"
  done

cat > etc/passwd <<END
root:x:0:0:root:/root:/bin/sh
mail:x:8:8:mail:/var/mail:/bin/false
postfix:x:91:91::/var/spool/postfix:/bin/false
Debian-exim:x:92:92::/var/spool/exim4:/bin/false
opensmtpd:x:93:93::/var/lib/opensmtpd/empty:/bin/false
opensmtpq:x:94:94::/var/lib/opensmtpd/empty:/bin/false
nobody:x:65534:65534::/nonexistent:/bin/false
END
cat > etc/group <<END
root:x:0:
mail:x:8:
postdrop:x:90:
postfix:x:91:
Debian-exim:x:92:
opensmtpd:x:93:
opensmtpq:x:94:
nogroup:x:65534:
END
printf '127.0.0.1 localhost\n' > etc/hosts
printf 'passwd: files\ngroup: files\nhosts: files\n' > etc/nsswitch.conf
printf 'smtp 25/tcp\nlmtp 24/tcp\n' > etc/services
: > etc/resolv.conf
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 444 dev/random c 1 8
mknod -m 444 dev/urandom c 1 9
chmod 1777 tmp
chmod 755 .

mkdir -p "$(dirname "$root")"
# Whole or not at all.
cp -a "$new/root" "$root.new-$$"
mv "$root.new-$$" "$root"

#!/bin/sh
# Courier's pop3d into the directory $1 without installing it: its package conflicts with Dovecot's.
# Prints where its programs are.
set -e
cd "$1"
mkdir -p packages && cd packages
apt-get download -qq -o APT::Sandbox::User=root courier-pop >/dev/null
dpkg-deb -x courier-pop_*.deb .
echo "$PWD/usr/lib/courier/courier"

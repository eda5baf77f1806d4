#!/usr/bin/env bash
# `etcdutl hashkv`, with which one checks a snapshot's keys, writes into the snapshot, and from then on
# `etcdutl snapshot restore` refuses it.
#
# Versions: etcd, etcdctl and etcdutl 3.7.1.
# Behaviour: a snapshot ends in a SHA-256 of what is before it. `hashkv` opens the file as a store, for writing,
#   and what it changes (no key) is not in the checksum. `snapshot status`, which looks alike, opens it for reading
#   only. After hashkv the only way to restore is --skip-hash-check, which gives up the check. So hash a copy.
# Seen:
#   status: file unchanged      restore: exit 0
#   hashkv: file changed        restore: exit 1, "expected sha256 [...], got [...]"
set -euo pipefail

scratch=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || { kill "$server" && wait "$server" || true; }
  rm -rf "$scratch"
}
trap finish EXIT
cd "$scratch"

go mod init finding 2>/dev/null
for module in server etcdctl etcdutl; do go mod edit -require "go.etcd.io/etcd/$module/v3@v3.7.1"; done
nice go build -mod=mod -trimpath -o etcd go.etcd.io/etcd/server/v3
nice go build -mod=mod -trimpath -o etcdctl go.etcd.io/etcd/etcdctl/v3
nice go build -mod=mod -trimpath -o etcdutl go.etcd.io/etcd/etcdutl/v3

./etcd --log-level fatal --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 \
  --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls unix://peer:0 --initial-cluster default=unix://peer:0 &
server=$!
ctl() { ./etcdctl --endpoints unix://client:0 --command-timeout 30s "$@"; }
until [ -S client:0 ]; do kill -0 "$server"; sleep 0.1; done

changed=0
expect() {
  echo "$1: $3"
  [ "$2" = "$3" ] || { echo "  CHANGED, it was: $2"; changed=1; }
}
against() { cmp -s "$1" original.db && echo "file unchanged" || echo "file changed"; }
restore() {
  local status=0
  ./etcdutl snapshot restore "$1" --data-dir "restored-$1" >restore.log 2>&1 || status=$?
  echo "exit $status $(grep -o 'expected sha256' restore.log || true)"
}

ctl put key value >/dev/null
ctl snapshot save original.db >/dev/null 2>&1
cp original.db looked-at.db
cp original.db hashed.db
./etcdutl snapshot status looked-at.db >/dev/null
expect "status" "file unchanged" "$(against looked-at.db)"
expect "restore after status" "exit 0 " "$(restore looked-at.db)"
./etcdutl hashkv hashed.db >/dev/null
expect "hashkv" "file changed" "$(against hashed.db)"
expect "restore after hashkv" "exit 1 expected sha256" "$(restore hashed.db)"
exit "$changed"

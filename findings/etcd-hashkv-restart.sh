#!/usr/bin/env bash
# HashKV, by which members are compared, answers another hash for the same revision after a restart, though nothing
# was written or compacted in between.
#
# Versions: etcd, etcdctl and etcdutl 3.7.1.
# Behaviour: while it compacts, etcd keeps a hash of what was there *before* (with the compaction before), and
#   answers it for that revision from then on, for its last ten compactions. The keeping is in memory. After a
#   restart the same call hashes what is left, says another compact_revision with it, and agrees with what
#   `etcdutl hashkv` says of a snapshot; before, it did not. So two hashes may be compared only if the
#   compact_revision beside them is equal too.
# Seen, a key put four times and compacted at revision 4:
#   before the restart: hash 4239374652 compact_revision -1
#   after it:           hash 112687334 compact_revision 4
#   etcdutl, before it: hash 112687334 compact_revision 4
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

start() {
  rm -f client:0
  ./etcd --log-level fatal --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 \
    --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls unix://peer:0 \
    --initial-cluster default=unix://peer:0 &
  server=$!
  until [ -S client:0 ]; do kill -0 "$server"; sleep 0.1; done
}
ctl() { ./etcdctl --endpoints unix://client:0 --command-timeout 30s "$@"; }
hash() {
  ctl endpoint hashkv --rev=4 --write-out=json | sed 's/.*"hash":\([0-9]*\),"compact_revision":\(-*[0-9]*\),.*/hash \1 compact_revision \2/'
}

changed=0
expect() {
  echo "$1: $3"
  [ "$2" = "$3" ] || { echo "  CHANGED, it was: $2"; changed=1; }
}

start
for value in 1 2 3 4; do ctl put key "$value" >/dev/null; done
ctl compact --physical 4 >/dev/null
expect "before the restart" "hash 4239374652 compact_revision -1" "$(hash)"
ctl snapshot save snapshot.db >/dev/null 2>&1
expect "etcdutl, before the restart" "hash 112687334 compact_revision 4" \
  "$(./etcdutl hashkv snapshot.db --rev 4 | awk -F ', ' '{ print "hash " $1 " compact_revision " $3 }')"
kill "$server" && wait "$server" || true
start
expect "after the restart" "hash 112687334 compact_revision 4" "$(hash)"
exit "$changed"

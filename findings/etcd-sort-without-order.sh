#!/usr/bin/env bash
# A sort target without an order is ascending in etcd, as its protocol and `etcdctl get --help` say; but with a
# limit it is not the same request as one that says ASCEND.
#
# Versions: etcd and etcdctl 3.7.1.
# Behaviour: --sort-by=VALUE --limit=2 takes the first three keys in the order of keys (limit + 1) and sorts those;
#   the same with --order=ASCEND sorts all keys and then cuts. And as a stream, where chunks are limits: each chunk
#   is sorted alone, the next begins behind the last key shown, wherever the sort has put it, so that of twenty
#   keys some come twice and others never. Nothing is an error.
# Seen, with k1 to k5 holding 5 4 3 2 1 and s10 to s29 falling values:
#   limit 2, no order:   k3 k2          limit 2, ASCEND: k5 k4
#   streamed, no order:  s20 down to s11, then s29 down to s12: nine keys twice, s10 never
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
go mod edit -require go.etcd.io/etcd/server/v3@v3.7.1 -require go.etcd.io/etcd/etcdctl/v3@v3.7.1
nice go build -mod=mod -trimpath -o etcd go.etcd.io/etcd/server/v3
nice go build -mod=mod -trimpath -o etcdctl go.etcd.io/etcd/etcdctl/v3

./etcd --log-level fatal --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 \
  --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls unix://peer:0 --initial-cluster default=unix://peer:0 &
server=$!
ctl() { ./etcdctl --endpoints unix://client:0 --command-timeout 30s "$@"; }
keys() { ctl get "$@" --prefix --keys-only | sed '/^$/d' | paste -sd ' '; }
until [ -S client:0 ]; do kill -0 "$server"; sleep 0.1; done

changed=0
expect() {
  echo "$1: $3"
  [ "$2" = "$3" ] || { echo "  CHANGED, it was: $2"; changed=1; }
}

for i in 1 2 3 4 5; do ctl put "k$i" "$((6 - i))" >/dev/null; done
for i in $(seq 10 29); do ctl put "s$i" "$((99 - i))" >/dev/null; done
expect "limit 2, no order" "k3 k2" "$(keys k --sort-by=VALUE --limit=2)"
expect "limit 2, ASCEND" "k5 k4" "$(keys k --sort-by=VALUE --limit=2 --order=ASCEND)"
all=$(printf 's%s\n' $(seq 29 -1 10) | paste -sd ' ')
expect "all at once, no order" "$all" "$(keys s --sort-by=VALUE)"
seen=$(printf 's%s\n' $(seq 20 -1 11) $(seq 29 -1 12) | paste -sd ' ')
expect "streamed, no order" "$seen" "$(keys s --sort-by=VALUE --stream)"
exit "$changed"

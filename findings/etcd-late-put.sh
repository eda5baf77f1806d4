#!/usr/bin/env bash
# A put that etcd has answered with a timeout can take effect later, over a newer put that was acknowledged, and
# with nobody asking again.
#
# Versions: etcd and etcdctl 3.7.1, three members with the default timers.
# Behaviour: a follower hands a put to the leader it knows and gives up on it after 7 seconds. If the leader's
#   process was stopped meanwhile (a paused virtual machine), the put lies in the connection between them. When the
#   old leader goes on, it is a follower, reads the put, and hands it to the new leader, who commits it. So the
#   outcome of a put that timed out is open for as long as a stopped leader may come back, not for some seconds.
# Seen, eight keys put as "old" right after the leader was stopped, then as "new" through the same follower:
#   the puts of "old":              etcdserver: request timed out (at times with a reason behind it)
#   the puts of "new", after those: OK
#   before the old leader goes on:  new new new new new new new new
#   a second after it:              old old old old old old old old
set -euo pipefail

scratch=$(mktemp -d)
declare -A member
finish() {
  for pid in "${member[@]}"; do kill -CONT "$pid" && kill -KILL "$pid" && wait "$pid" || true; done 2>/dev/null
  rm -rf "$scratch"
}
trap finish EXIT
cd "$scratch"

go mod init finding 2>/dev/null
go mod edit -require go.etcd.io/etcd/server/v3@v3.7.1 -require go.etcd.io/etcd/etcdctl/v3@v3.7.1
nice go build -mod=mod -trimpath -o etcd go.etcd.io/etcd/server/v3
nice go build -mod=mod -trimpath -o etcdctl go.etcd.io/etcd/etcdctl/v3

for name in a b c; do
  ./etcd --log-level fatal --name "$name" --listen-client-urls "unix://client-$name:0" \
    --advertise-client-urls "unix://client-$name:0" --listen-peer-urls "unix://peer-$name:0" \
    --initial-advertise-peer-urls "unix://peer-$name:0" \
    --initial-cluster a=unix://peer-a:0,b=unix://peer-b:0,c=unix://peer-c:0 &
  member[$name]=$!
done
ctl() {
  local at=$1
  shift
  ./etcdctl --endpoints "unix://client-$at:0" "$@"
}
SECONDS=0
for name in a b c; do
  until ctl "$name" get ready >/dev/null 2>&1; do
    kill -0 "${member[$name]}"
    [ "$SECONDS" -lt 60 ] || { echo "member $name does not answer"; exit 1; }
    sleep 0.2
  done
done

leader=
for name in a b c; do
  case $(ctl "$name" endpoint status) in *", true, false,"*) leader=$name ;; esac
done
follower=a
[ "$leader" != a ] || follower=b

kill -STOP "${member[$leader]}"
puts=()
for i in $(seq 8); do
  ctl "$follower" put "key$i" old --command-timeout 9s >"old$i" 2>&1 &
  puts+=($!)
done
failed=()
for i in $(seq 8); do
  wait "${puts[i - 1]}" || failed+=("$i")
done
echo "puts of old that failed: ${#failed[@]}, with: $(sed -n 's/^Error: //p' old* | sort -u | paste -sd ';')"
[ "${#failed[@]}" -gt 0 ] || { echo "CHANGED, or this machine is slower than an election: no put failed"; exit 1; }

for i in $(seq 8); do ctl "$follower" put "key$i" new --command-timeout 30s >/dev/null; done
values() { ctl "$follower" get key --prefix --print-value-only --command-timeout 30s | paste -sd ' '; }
echo "before the old leader goes on: $(values)"
kill -CONT "${member[$leader]}"
late=0
for _ in $(seq 20); do
  sleep 0.5
  late=0
  for i in "${failed[@]}"; do
    [ "$(ctl "$follower" get "key$i" --print-value-only --command-timeout 30s)" = new ] || late=$((late + 1))
  done
  [ "$late" = 0 ] || break
done
echo "after it: $(values)"
[ "$late" -gt 0 ] || { echo "CHANGED: no put that had failed took effect later"; exit 1; }

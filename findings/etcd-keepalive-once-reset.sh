#!/usr/bin/env bash
# Each KeepAliveOnce of etcd's Go client (`etcdctl lease keep-alive --once`) ends with an HTTP/2 reset of its
# stream, though it was answered and nothing went wrong.
#
# Versions: etcd and its Go client 3.7.1.
# Behaviour: the method is a stream in the protocol. The client opens one, sends one request, takes one answer, and
#   then cancels rather than reads to the end, which is RST_STREAM(CANCEL). A program that renews its leases so
#   sends as many resets as renewals over one connection: to a server, or a proxy, that counts resets per
#   connection it looks like the "rapid reset" flood. KeepAlive (one stream that stays) and calls like Put send none.
# Seen (frames from the client to the server, counted by a relay between them):
#   20 times Put:           20 streams, 0 resets
#   20 times KeepAliveOnce: 20 streams, 20 resets with code CANCEL
#   KeepAlive:              1 stream, 0 resets
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
for module in server client; do go mod edit -require "go.etcd.io/etcd/$module/v3@v3.7.1"; done
go mod edit -require golang.org/x/net@v0.55.0
cat >main.go <<'END'
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
)

var (
	mutex sync.Mutex
	seen  []string // HEADERS, and RST_STREAM with its code, as they came from the client
)

// count reads the client's half of a connection: a preface, then frames.
func count(from io.Reader) {
	io.ReadFull(from, make([]byte, len(http2.ClientPreface)))
	framer := http2.NewFramer(io.Discard, from)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			io.Copy(io.Discard, from)
			return
		}
		mutex.Lock()
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			seen = append(seen, "HEADERS")
		case *http2.RSTStreamFrame:
			seen = append(seen, frame.ErrCode.String())
		}
		mutex.Unlock()
	}
}

func relay(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", "client:0")
		check(err)
		reader, writer := io.Pipe()
		go count(reader)
		go io.Copy(server, io.TeeReader(client, writer))
		go io.Copy(client, server)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// frames says which frames a step sent. What the client sends after its answer is given a moment to arrive.
func frames(step func()) {
	mutex.Lock()
	seen = nil
	mutex.Unlock()
	step()
	time.Sleep(500 * time.Millisecond)
	mutex.Lock()
	defer mutex.Unlock()
	text := strings.Join(seen, " ")
	streams, cancels := strings.Count(text, "HEADERS"), strings.Count(text, "CANCEL")
	fmt.Printf("streams %d resets with CANCEL %d other resets %d\n", streams, cancels, len(seen)-streams-cancels)
}

func main() {
	listener, err := net.Listen("unix", "relay:0")
	check(err)
	go relay(listener)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://relay:0"}})
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	lease, err := client.Grant(ctx, 600)
	check(err)
	frames(func() {
		for range 20 {
			_, err := client.Put(ctx, "key", "value")
			check(err)
		}
	})
	frames(func() {
		for range 20 {
			_, err := client.KeepAliveOnce(ctx, lease.ID)
			check(err)
		}
	})
	frames(func() {
		answers, err := client.KeepAlive(ctx, lease.ID)
		check(err)
		<-answers
	})
}
END
nice go build -mod=mod -trimpath -o etcd go.etcd.io/etcd/server/v3
nice go build -mod=mod -trimpath -o count .

./etcd --log-level fatal --listen-client-urls unix://client:0 --advertise-client-urls unix://client:0 \
  --listen-peer-urls unix://peer:0 --initial-advertise-peer-urls unix://peer:0 --initial-cluster default=unix://peer:0 &
server=$!
until [ -S client:0 ]; do kill -0 "$server"; sleep 0.1; done

./count >now
cat >then <<'END'
streams 20 resets with CANCEL 0 other resets 0
streams 20 resets with CANCEL 20 other resets 0
streams 1 resets with CANCEL 0 other resets 0
END
paste -d ' ' <(printf '%s\n' "20 Put:" "20 KeepAliveOnce:" "KeepAlive:") now
diff then now || { echo "CHANGED: < is how it was, > how it is"; exit 1; }

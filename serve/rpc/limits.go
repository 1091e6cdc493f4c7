package rpc

import (
	"sync/atomic"
	"time"
)

// Limits bound what clients can make the server hold. A zero is the default.
type Limits struct {
	// Connections is how many TCP connections there may be at once (8192), and
	// PerClient how many of them from one address (64).
	Connections, PerClient int
	// InFlight is how many calls of one address may wait for disk at once (64);
	// its connections are not read further until one is done. Workers is the
	// same for all addresses together (256).
	InFlight, Workers int
	// Record is the longest call in bytes (2 MiB).
	Record int
	// Memory is how many bytes calls in pieces and replies on their way out may
	// take in all (256 MiB). Who would go beyond loses the connection. Replies that
	// wait for their turn may take as much again; beyond that, workers wait with them.
	Memory int64
	// Idle is how long a connection may be silent (30 minutes), Partial how
	// long a record may take to arrive (1 minute), Write how long a reply may
	// take to go out (1 minute), and Drain how long calls in flight have to
	// end when the server stops (5 seconds).
	Idle, Partial, Write, Drain time.Duration
}

func (l Limits) withDefaults() Limits {
	orDefault(&l.Connections, 8192)
	orDefault(&l.PerClient, 64)
	orDefault(&l.InFlight, 64)
	orDefault(&l.Workers, 256)
	orDefault(&l.Record, 2<<20)
	orDefault(&l.Memory, 256<<20)
	orDefault(&l.Idle, 30*time.Minute)
	orDefault(&l.Partial, time.Minute)
	orDefault(&l.Write, time.Minute)
	orDefault(&l.Drain, 5*time.Second)
	return l
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// budget is a number of bytes that many goroutines share. A nil budget has no
// end.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take tells whether n more bytes may be used.
func (b *budget) take(n int64) bool {
	if b == nil || b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) {
	if b != nil {
		b.used.Add(-n)
	}
}

// Stats counts what the front saw; read them with Load at any time.
type Stats struct {
	// Calls are those that reached a program, by transport.
	CallsTCP, CallsUDP atomic.Uint64
	// Connections are open now; Accepted and Refused (over a limit) since the start.
	Connections       atomic.Int64
	Accepted, Refused atomic.Uint64
	// Dropped are messages that are no calls and datagrams for which there was
	// no worker; Denied those with a wrong RPC version or credential.
	Dropped, Denied atomic.Uint64
	// Cut are connections that were closed for a record too long, too slow or
	// for want of memory.
	Cut atomic.Uint64
	// Panics are calls that made a handler panic; each is logged.
	Panics atomic.Uint64
	// BytesIn and BytesOut are payload without TCP, UDP or IP.
	BytesIn, BytesOut atomic.Uint64
}

package volume

import (
	"hash/maphash"
	"net/netip"
	"sync"

	"rhizome/serve/rpc"
)

// maxReplays is how many replies are kept.
const maxReplays = 2048

// replays answers a call that comes again, because its reply was lost, with
// the reply it had: else the second REMOVE of a name would find none, and the
// program on the node would see an error for what was done.
type replays struct {
	mu    sync.Mutex
	seed  maphash.Seed
	known map[replayKey]*replay
	// order is a ring of the keys, the oldest at next.
	order []replayKey
	next  int
}

// replayKey is who called, by which transmission, and what: an xid alone comes
// again when a node restarts.
type replayKey struct {
	peer      netip.AddrPort
	transport rpc.Transport
	xid, proc uint32
	args      uint64
}

type replay struct {
	done   chan struct{}
	status rpc.Status
	body   []byte
}

func newReplays() *replays {
	return &replays{seed: maphash.MakeSeed(), known: map[replayKey]*replay{}, order: make([]replayKey, 0, maxReplays)}
}

// once runs serve for a call that is new, and waits for the first run of one
// that is not.
func (r *replays) once(c *rpc.Call, out *rpc.Reply, serve func(*rpc.Reply) rpc.Status) rpc.Status {
	key := replayKey{c.Peer.Remote, c.Peer.Transport, c.XID, c.Procedure, maphash.Bytes(r.seed, c.Args)}
	entry, fresh := r.enter(key)
	if fresh {
		entry.status = rpc.SystemErr // should serve panic
		defer close(entry.done)
		var reply rpc.Reply
		entry.status = serve(&reply)
		entry.body = reply.Bytes()
	} else {
		<-entry.done
	}
	out.Raw(entry.body)
	return entry.status
}

func (r *replays) enter(key replayKey) (entry *replay, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if entry := r.known[key]; entry != nil {
		return entry, false
	}
	entry = &replay{done: make(chan struct{})}
	r.known[key] = entry
	if len(r.order) < maxReplays {
		r.order = append(r.order, key)
	} else {
		delete(r.known, r.order[r.next])
		r.order[r.next] = key
		r.next = (r.next + 1) % maxReplays
	}
	return entry, true
}

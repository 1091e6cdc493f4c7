package volume

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"

	"rhizome/serve/rpc"
)

// maxReplays is how many replies are kept.
const maxReplays = 16384

// replays answers a call that comes again, because its reply was lost, with
// the reply it had: else the second REMOVE of a name would find none, and the
// program on the node would see an error for what was done.
type replays struct {
	mu    sync.Mutex
	seed  maphash.Seed
	known map[replayKey]*replay
	// all are the replies, the oldest first, and clients those of each address.
	all     list.List
	clients map[netip.Addr]*list.List
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

	key replayKey
	// inAll and inOwn are its places in the lists.
	inAll, inOwn *list.Element
}

func newReplays() *replays {
	return &replays{seed: maphash.MakeSeed(), known: map[replayKey]*replay{}, clients: map[netip.Addr]*list.List{}}
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
	addr := key.peer.Addr()
	r.makeRoom(addr)
	own := r.clients[addr]
	if own == nil {
		own = list.New()
		r.clients[addr] = own
	}
	entry = &replay{done: make(chan struct{}), key: key}
	entry.inAll, entry.inOwn = r.all.PushBack(entry), own.PushBack(entry)
	r.known[key] = entry
	return entry, true
}

// makeRoom forgets the oldest reply where there are too many: the caller's own,
// if it has its share of all. A node that changes much does not push out what
// others may need yet.
func (r *replays) makeRoom(addr netip.Addr) {
	if r.all.Len() < maxReplays {
		return
	}
	oldest := r.all.Front()
	if own := r.clients[addr]; own != nil && own.Len()*len(r.clients) >= maxReplays {
		oldest = own.Front()
	}
	r.forget(oldest.Value.(*replay))
}

func (r *replays) forget(entry *replay) {
	addr := entry.key.peer.Addr()
	own := r.clients[addr]
	delete(r.known, entry.key)
	r.all.Remove(entry.inAll)
	if own.Remove(entry.inOwn); own.Len() == 0 {
		delete(r.clients, addr)
	}
}

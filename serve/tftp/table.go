package tftp

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
)

// table holds the running transfers by the client's port. A client's port means
// one transfer at a time: asked again for the same before it was answered, the
// request is a repetition; asked for something else, the earlier is over. The
// latter is FreeBSD's loader, which closes a file without a word and may open the next
// from the same port; blocks of the old file must never reach it then.
type table struct {
	total, perClient int

	mu      sync.Mutex
	running map[netip.AddrPort]*entry
	clients map[netip.Addr]int
}

type entry struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	packet string
	heard  atomic.Bool
}

func newTable(total, perClient int) *table {
	return &table{
		total: total, perClient: perClient,
		running: map[netip.AddrPort]*entry{}, clients: map[netip.Addr]int{},
	}
}

func (t *table) admit(ctx context.Context, from netip.AddrPort, packet string) (*entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.running[from]
	if old != nil {
		if old.packet == packet && !old.heard.Load() {
			return nil, false
		}
		old.cancel(errSuperseded)
		t.remove(from)
	}
	if len(t.running) >= t.total || t.clients[from.Addr()] >= t.perClient {
		return nil, false
	}
	e := &entry{packet: packet}
	e.ctx, e.cancel = context.WithCancelCause(ctx)
	t.running[from] = e
	t.clients[from.Addr()]++
	return e, true
}

// release forgets a transfer, unless another has taken its place.
func (t *table) release(from netip.AddrPort, e *entry) {
	e.cancel(nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[from] == e {
		t.remove(from)
	}
}

func (t *table) remove(from netip.AddrPort) {
	delete(t.running, from)
	if t.clients[from.Addr()]--; t.clients[from.Addr()] <= 0 {
		delete(t.clients, from.Addr())
	}
}

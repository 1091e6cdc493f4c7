package volume

import (
	"fmt"
	"net"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// badly connects as root of a node through a network that loses 2 of 100
// datagrams, doubles 5 and swaps 5.
func (w *world) badly(from string) (*client, *rpctest.Relay) {
	w.t.Helper()
	local := &net.UDPAddr{IP: net.ParseIP(from), Port: freePort(w.t, from)}
	relay := rpctest.NewRelay(w.t, w.udpAddr, local, rpctest.Faults{Loss: 0.02, Double: 0.05, Swap: 0.05})
	c, err := rpctest.Dial("udp", relay.Addr())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &client{w.t, c}, relay
}

// freePort finds a reserved port that nobody has.
func freePort(t testing.TB, addr string) int {
	t.Helper()
	for port := 1023; port > 600; port-- {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr), Port: port})
		if err == nil {
			pc.Close()
			return port
		}
	}
	t.Fatalf("no reserved port of %s is free", addr)
	return 0
}

// insist makes one call, again and again until it is answered.
func (c *client) insist(proc uint32, args ...[]byte) (status, rpc.Decoder) {
	c.t.Helper()
	var all []byte
	for _, a := range args {
		all = append(all, a...)
	}
	replies, err := c.Insist(100003, 3, proc, all)
	if err != nil {
		c.t.Fatalf("calling procedure %d: %v", proc, err)
	}
	d := rpc.NewDecoder(replies[0].Body)
	return status(d.Uint32()), d
}

// TestEachChangeHappensOnceOverABadNetwork: calls are sent again and come
// doubled and late; none is done twice, and none fails for having been done.
func TestEachChangeHappensOnceOverABadNetwork(t *testing.T) {
	onEach(t, func(t *testing.T, w *world, c *client, dir handle) {
		u, relay := w.badly(addr1)
		for i := range 60 {
			was, is, twin := fmt.Sprint("was", i), fmt.Sprint("is", i), fmt.Sprint("twin", i)
			st, d := u.insist(procCreate, fh(dir), str(was), u32(guarded), sattr{mode: ptr[uint32](0o644)}.xdr())
			h, st := u.made(st, d)
			u.must("creating", st, statusOK)
			body := fmt.Sprint("body of ", i)
			st, _ = u.insist(procWrite, fh(h), u64(0), u32(uint32(len(body)), fileSync), str(body))
			u.must("writing", st, statusOK)
			st, _ = u.insist(procLink, fh(h), fh(dir), str(twin))
			u.must("linking", st, statusOK)
			st, _ = u.insist(procRename, fh(dir), str(was), fh(dir), str(is))
			u.must("renaming", st, statusOK)
			if i%2 == 0 {
				st, _ = u.insist(procRemove, fh(dir), str(is))
				u.must("removing", st, statusOK)
			}
		}
		have := c.list(dir)
		for i := range 60 {
			_, was := have[fmt.Sprint("was", i)]
			_, is := have[fmt.Sprint("is", i)]
			if was || is != (i%2 == 1) {
				t.Errorf("file %d: old name %t, new name %t", i, was, is)
			}
			if got := c.content(c.walk(dir, fmt.Sprint("twin", i))); got != fmt.Sprint("body of ", i) {
				t.Errorf("file %d holds %q", i, got)
			}
		}
		if did := relay.Done(); did.Lost == 0 || did.Doubled == 0 || did.Swapped == 0 {
			t.Errorf("the network was a good one: %+v", did)
		}
	})
}

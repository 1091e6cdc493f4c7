package nfs

import (
	"bytes"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// bad is a network that loses 2 of 100 datagrams, doubles 5 and swaps 5.
var bad = rpctest.Faults{Loss: 0.02, Double: 0.05, Swap: 0.05}

// TestUDPReadersGetRightBytesOverABadNetwork: the loader's way, pieces of 8
// KiB, one call or eight in flight; each byte is the file's.
func TestUDPReadersGetRightBytesOverABadNetwork(t *testing.T) {
	w := newWorld(t)
	s := w.listenAt(rpc.Limits{}, 0)
	h, body := w.root().walk("sbin", "init"), text(2_500_000)
	for _, inFlight := range []int{1, 8} {
		relay := rpctest.NewRelay(t, s.udp.String(), nil, bad)
		c, err := rpctest.Dial("udp", relay.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var got []byte
		for len(got) < len(body) {
			var calls [][]byte
			for i := range inFlight {
				calls = append(calls, join(rpctest.Opaque(h), [][]byte{u64(uint64(len(got) + i*8192)), rpctest.Words(8192)}))
			}
			replies, err := c.Insist(Program, 3, procRead, calls...)
			if err != nil {
				t.Fatalf("after %d bytes: %v", len(got), err)
			}
			for _, r := range replies {
				res, err := parseResults(procRead, r.Body)
				if err != nil || res.Status != ok {
					t.Fatalf("READ after %d bytes: status %d, %v", len(got), res.Status, err)
				}
				got = append(got, res.Data...)
			}
		}
		if !bytes.Equal(got, body) {
			t.Errorf("with %d in flight, %d bytes came and are not the file's", inFlight, len(got))
		}
		did := relay.Done()
		t.Logf("%d in flight: %+v", inFlight, did)
		if did.Lost == 0 || did.Doubled == 0 || did.Swapped == 0 {
			t.Errorf("the network was a good one: %+v", did)
		}
	}
}

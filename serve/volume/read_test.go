package volume

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

	"rhizome/serve/rpc"
)

// shrinking is a file that is cut just before its bytes are read.
type shrinking struct {
	object
	to uint64
}

func (s *shrinking) readAt(p []byte, off int64) (int, error) {
	if err := s.set(&setAttrs{hasSize: true, size: s.to}); err != nil {
		return 0, err
	}
	return s.object.readAt(p, off)
}

// What is read of a file that somebody cuts meanwhile ends where the file does, and
// says that it is the end: a client that is told of nothing and of no end (Linux)
// gives the program EIO.
func TestAReadOfAFileThatIsCutMeanwhileEnds(t *testing.T) {
	o, err := openOverlay(overlayConfig{dir: t.TempDir(), now: func() moment { return moment{Sec: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	for _, left := range []uint64{0, 100, 5000} {
		f, err := o.object(rootID).create("f", &newObject{kind: kindRegular, mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.writeAt(bytes.Repeat([]byte("x"), 10_000), 0); err != nil {
			t.Fatal(err)
		}
		a, err := f.attr()
		if err != nil {
			t.Fatal(err)
		}
		var out rpc.Reply
		peer := rpc.NewPeer(context.Background(), netip.MustParseAddrPort("127.0.0.1:700"), rpc.TCP)
		r := request{x: &export{}, call: &rpc.Call{Procedure: procRead, Peer: peer}, out: &out, obj: &shrinking{f, left}, attr: a}
		const from = 100
		r.readBody(from, 10_000-from)
		d := rpc.NewDecoder(out.Bytes())
		st, follows := status(d.Uint32()), d.Bool()
		now := readAttr(&d)
		count, eof := d.Uint32(), d.Bool()
		want := uint32(max(left, from) - from)
		if st != statusOK || !follows || count != want || !eof || uint32(len(d.Opaque(10_000))) != want || now.size != left {
			t.Errorf("cut to %d bytes, a READ from %d gives status %v, %d bytes, end %t, of a file of %d", left, from, st, count, eof, now.size)
		}
		if err := o.object(rootID).remove("f", false); err != nil {
			t.Fatal(err)
		}
	}
}

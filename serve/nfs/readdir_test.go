package nfs

import (
	"fmt"
	"testing"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// list reads a directory to its end in replies of so many bytes.
func (c *caller) list(procedure uint32, h []byte, count uint32) (names []string, replies int) {
	c.w.t.Helper()
	cookie, verf := uint64(0), uint64(0)
	for {
		args := [][]byte{u64(cookie), u64(verf), rpctest.Words(count)}
		if procedure == procReaddirplus {
			args = append(args, rpctest.Words(count))
		}
		status, body := c.serve(c.w.Programs()[0], 3, procedure, join(rpctest.Opaque(h), args))
		r, err := parseResults(procedure, body)
		if status != rpc.Success || err != nil || r.Status != ok || len(r.Entries) == 0 && !r.EOF {
			c.w.t.Fatalf("after %d names: RPC status %d, status %d, %d entries, %v", len(names), status, r.Status, len(r.Entries), err)
		}
		if len(body) > int(count)+4 {
			c.w.t.Fatalf("%d bytes where the client takes %d", len(body), count)
		}
		for _, e := range r.Entries {
			names = append(names, e.Name)
			cookie = e.Cookie
		}
		verf = r.Verifier
		replies++
		if r.EOF {
			return names, replies
		}
	}
}

func join(first []byte, rest [][]byte) []byte {
	for _, r := range rest {
		first = append(first, r...)
	}
	return first
}

// TestDirectoryOfManyNamesIsReadWholeInPiecesOfAnySize: 1,024 bytes are what
// FreeBSD's loader asks.
func TestDirectoryOfManyNamesIsReadWholeInPiecesOfAnySize(t *testing.T) {
	const n = 100_000
	files := []file{dir("many", 0o755)}
	for i := range n {
		files = append(files, reg(fmt.Sprintf("many/file-%06d", i), 0o644, nil))
	}
	w := newWorld(t, files...)
	h := w.root().walk("many")
	for _, c := range []struct {
		procedure uint32
		c         *caller
		count     uint32
	}{
		{procReaddir, w.root().over(rpc.UDP), 1024},
		{procReaddir, w.root(), 8192},
		{procReaddir, w.root(), 1 << 20},
		{procReaddirplus, w.root(), 4096},
		{procReaddirplus, w.root(), 1 << 20},
	} {
		names, replies := c.c.list(c.procedure, h, c.count)
		if len(names) != n+2 || names[0] != "." || names[1] != ".." {
			t.Fatalf("%s of %d bytes: %d names in %d replies", procNames[c.procedure], c.count, len(names), replies)
		}
		for i, name := range names[2:] {
			if name != fmt.Sprintf("file-%06d", i) {
				t.Fatalf("%s of %d bytes: name %d is %q", procNames[c.procedure], c.count, i, name)
			}
		}
	}
}

func TestEntriesSayTheSameAsLookup(t *testing.T) {
	w := newWorld(t)
	top := w.root().walk()
	etc := w.root().walk("etc")
	r := w.root().nfs(procReaddirplus, etc, u64(0), u64(0), rpctest.Words(8192, 32768))
	if !r.EOF || len(r.Entries) != 7 {
		t.Fatalf("%d entries", len(r.Entries))
	}
	for _, e := range r.Entries {
		l := w.root().nfs(procLookup, etc, rpctest.Opaque([]byte(e.Name)))
		if l.Status != ok || e.Attr == nil || *l.Obj != *e.Attr || string(l.Handle) != string(e.Handle) || e.FileID != l.Obj.FileID {
			t.Errorf("%q: %+v, but LOOKUP says %+v", e.Name, e, l)
		}
	}
	plain := w.root().nfs(procReaddir, etc, u64(0), u64(0), rpctest.Words(32768))
	for i, e := range plain.Entries {
		if p := r.Entries[i]; p.Name != e.Name || p.FileID != e.FileID || p.Cookie != e.Cookie {
			t.Errorf("READDIR says %+v, READDIRPLUS %+v", e, p)
		}
	}
	if r := w.root().nfs(procReaddir, top, u64(0), u64(0), rpctest.Words(8192)); r.Entries[0].FileID != r.Entries[1].FileID {
		t.Error("the root's parent is not the root")
	}
}

func TestListingGoesOnAfterAnyCookie(t *testing.T) {
	w := newWorld(t)
	etc := w.root().walk("etc")
	all := w.root().nfs(procReaddir, etc, u64(0), u64(0), rpctest.Words(8192))
	for i, e := range all.Entries {
		for _, verf := range []uint64{all.Verifier, 0} {
			r := w.root().nfs(procReaddir, etc, u64(e.Cookie), u64(verf), rpctest.Words(8192))
			if r.Status != ok || len(r.Entries) != len(all.Entries)-i-1 || !r.EOF {
				t.Errorf("after %q: status %d, %d entries", e.Name, r.Status, len(r.Entries))
			}
		}
	}
	wrong := map[string]struct {
		cookie, verf uint64
		count        uint32
		want         status
	}{
		"another verifier":          {3, all.Verifier + 1, 8192, errBadCookie},
		"no room for any":           {0, 0, 100, errTooSmall},
		"no room at all":            {0, 0, 0, errTooSmall},
		"a cookie of another place": {1 << 40, all.Verifier, 8192, errBadCookie},
		"the largest cookie":        {1<<64 - 1, all.Verifier, 8192, errBadCookie},
	}
	for name, c := range wrong {
		t.Run(name, func(t *testing.T) {
			r := w.root().nfs(procReaddir, etc, u64(c.cookie), u64(c.verf), rpctest.Words(c.count))
			if r.Status != c.want || r.Obj == nil || len(r.Entries) != 0 {
				t.Errorf("status %d, %d entries", r.Status, len(r.Entries))
			}
		})
	}
	if r := w.root().nfs(procReaddirplus, etc, u64(0), u64(0), rpctest.Words(20, 32768)); r.Status != ok || len(r.Entries) != 1 || r.EOF {
		t.Errorf("READDIRPLUS with a dircount of 20: status %d, %d entries", r.Status, len(r.Entries))
	}
	if r := w.root().nfs(procReaddir, w.root().walk("bin", "sh"), u64(0), u64(0), rpctest.Words(4096)); r.Status != errNotDir || r.Obj == nil {
		t.Errorf("READDIR of a file: status %d", r.Status)
	}
}

package nfs

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

type blobBody struct{ *bytes.Reader }

func (blobBody) Close() error { return nil }

// withBlobs exports two blobs as /blobs/a beside nodeA's root.
func (w *world) withBlobs() (large []byte) {
	large = text(2_500_001)
	bodies := map[string][]byte{"sha256:1": []byte("one"), "sha256:2": large}
	list := []rootfs.Blob{{Name: "sha256-1", Digest: "sha256:1", Size: 3}, {Name: "sha256-2", Digest: "sha256:2", Size: int64(len(large))}}
	w.exports.mu.Lock()
	defer w.exports.mu.Unlock()
	w.exports.views["/blobs/a"] = rootfs.NewBlobs(digestA, list, func(digest string) (rootfs.BlobReader, error) {
		return blobBody{bytes.NewReader(bodies[digest])}, nil
	})
	w.exports.owner["/blobs/a"] = nodeA
	w.exports.generation.Add(1)
	return large
}

// blobHandles are those of the directory and of its larger file.
func (w *world) blobHandles() (top, file []byte) {
	w.t.Helper()
	st, top := w.root().mount("/blobs/a")
	r := w.root().nfs(procLookup, top, rpctest.Opaque([]byte("sha256-2")))
	if st != 0 || r.Status != ok {
		w.t.Fatalf("MNT %d, LOOKUP %d", st, r.Status)
	}
	return top, r.Handle
}

func TestABlobIsAFileForRootOfItsNodeAlone(t *testing.T) {
	w := newWorld(t)
	large := w.withBlobs()
	top, file := w.blobHandles()
	size := uint64(len(large))
	for _, c := range []struct {
		offset   uint64
		count    uint32
		from, to uint64
		over     rpc.Transport
	}{
		{0, 1 << 20, 0, 1 << 20, rpc.TCP}, {7, 333, 7, 340, rpc.TCP}, {size - 9, 4096, size - 9, size, rpc.TCP}, {size, 1, size, size, rpc.TCP},
		{1 << 63, math.MaxUint32, 0, 0, rpc.TCP}, {math.MaxUint64, 1, 0, 0, rpc.TCP}, {5, math.MaxUint32, 5, 5 + 32<<10, rpc.UDP},
	} {
		r := w.root().over(c.over).nfs(procRead, file, u64(c.offset), rpctest.Words(c.count))
		if r.Status != ok || !bytes.Equal(r.Data, large[c.from:c.to]) || r.EOF != (c.to == size || c.offset >= size) {
			t.Errorf("READ at %d: status %d, %d bytes, eof %v", c.offset, r.Status, len(r.Data), r.EOF)
		}
	}
	for name, c := range map[string]struct {
		who  *caller
		want status
	}{
		"a user of the node":            {w.as(nodeA, 1000, 1000), errAcces},
		"who only says that it is root": {&caller{w, rpc.NewPeer(t.Context(), netip.AddrPortFrom(nodeA, 40000), rpc.TCP), rpc.NewSysCred(0, 0)}, errAcces},
		"root of another node":          {w.as(nodeB, 0, 0), errAcces},
	} {
		if r := c.who.nfs(procRead, file, u64(0), rpctest.Words(10)); r.Status != c.want {
			t.Errorf("%s: READ %d", name, r.Status)
		}
		if r := c.who.nfs(procLookup, top, rpctest.Opaque([]byte("sha256-1"))); r.Status != c.want {
			t.Errorf("%s: LOOKUP %d", name, r.Status)
		}
	}
	if st, _ := w.as(nodeB, 0, 0).mount("/blobs/a"); st != mntAcces {
		t.Errorf("root of another node: MNT %d", st)
	}
	if r := w.root().nfs(procWrite, file, u64(0), rpctest.Words(4, 2, 4, 0)); r.Status != errROFS {
		t.Errorf("WRITE: %d", r.Status)
	}
	for at, want := range map[int]status{7: errStale, 31: errStale, 1: errBadHandle} {
		h := bytes.Clone(file)
		h[at] += 9
		if r := w.root().nfs(procGetattr, h); r.Status != want {
			t.Errorf("a handle that is wrong in byte %d: %d", at, r.Status)
		}
	}
}

// A mount of the blobs is seen, and is not taken for that of a root.
func TestAMountOfBlobsIsNoBoot(t *testing.T) {
	w := newWorld(t)
	w.withBlobs()
	w.blobHandles()
	for _, e := range w.events {
		if e.Kind != boot.MountDone || e.Digest != "" || e.File != "/blobs/a" {
			t.Errorf("%+v", e)
		}
	}
	if len(w.events) != 1 {
		t.Errorf("%d events", len(w.events))
	}
	w.root().walk("bin")
	if got := fmt.Sprint(w.kinds()); got != fmt.Sprint([]boot.Kind{boot.MountDone, boot.MountDone, boot.NFSFirstCall}) {
		t.Errorf("after the root's mount: %v", got)
	}
}

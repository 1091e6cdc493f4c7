package serve

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhizome/serve/nfs"
	"rhizome/serve/node/nodeapi"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type blobBody struct{ *bytes.Reader }

func (blobBody) Close() error { return nil }

// withLayer is an image of n1 whose manifest names one blob, twice, and one by
// an algorithm that nodes are not served by; the view has a layer in memory
// besides.
func withLayer(t *testing.T, body string) *Machine {
	t.Helper()
	m := imageOf(t, body)
	d := ocispec.Descriptor{Digest: digest.FromString(body), Size: int64(len(body))}
	m.Layers = []ocispec.Descriptor{d, d, {Digest: digest.SHA512.FromString(body), Size: 1}}
	m.DiffIDs = make([]digest.Digest, len(m.Layers))
	return m
}

func blobExports(f *Fleet, bodies ...string) nfsExports {
	return nfsExports{fleet: f, open: func(d string) (rootfs.BlobReader, error) {
		for _, body := range bodies {
			if digest.FromString(body).String() == d {
				return blobBody{bytes.NewReader([]byte(body))}, nil
			}
		}
		return nil, fs.ErrNotExist
	}}
}

// names lists what an export of blobs holds, and reads it.
func names(t *testing.T, fsys nfs.FS) (list []string, bodies string) {
	t.Helper()
	if err := fsys.ReadDir(fsys.Root(), 0, func(d rootfs.Dirent) bool {
		list = append(list, d.Name)
		loans, err := fsys.Borrow(d.File, 0, 1<<20, nil)
		if err != nil {
			t.Error(err)
		}
		for _, l := range loans {
			bodies += string(l.Data)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return list, bodies
}

// The export has the blobs of the boot that the node is in, under the names that
// its plan leads to, and goes on with them when others boot; a look at it is no
// step of a boot.
func TestBlobsAreThoseOfTheNodesBoot(t *testing.T) {
	f := NewFleet(time.Now)
	old, next := withLayer(t, "old"), withLayer(t, "new")
	x := blobExports(f, "old", "new")
	switchTo(t, f, old)
	f.Take(card, StepFirmware)
	switchTo(t, f, next)
	during, err := x.Export("/blobs/n1", old.Node.Address)
	if err != nil {
		t.Fatal(err)
	}
	old.Node.Root = "ram"
	file := nodeapi.BlobFile(old.plan().Layers[0].Digest)
	if list, bodies := names(t, during); strings.Join(list, " ") != file || bodies != "old" {
		t.Errorf("during the boot it has %v, %q", list, bodies)
	}
	if at := old.plan().Blobs; !strings.HasSuffix(at, ":/blobs/n1") {
		t.Errorf("the plan says %q", at)
	}
	f.Take(card, StepFirmware)
	after, err := x.Export("/blobs/n1", old.Node.Address)
	if err != nil {
		t.Fatal(err)
	}
	if _, bodies := names(t, after); bodies != "new" {
		t.Errorf("the next boot has %q", bodies)
	}
	again, err := x.ByID(during.ID(), old.Node.Address, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, bodies := names(t, again); bodies != "old" {
		t.Errorf("a handle of the former boot leads to %q", bodies)
	}
}

// A server that was started anew knows handles of the blobs of what runs.
func TestHandlesOfBlobsOutliveARestart(t *testing.T) {
	old := withLayer(t, "old")
	id := rootfs.BlobsID(old.Manifest.String())
	f := NewFleet(time.Now)
	x := blobExports(f, "old")
	switchTo(t, f, withLayer(t, "new"))
	if _, err := x.ByID(id, old.Node.Address, true); !errors.Is(err, rootfs.ErrStale) {
		t.Errorf("of an image that is not here: %v", err)
	}
	f.Keep(old)
	if fsys, err := x.ByID(id, old.Node.Address, true); err != nil || fsys.ID() != id {
		t.Errorf("of one that is: %v", err)
	}
}

func TestBlobsAreTheNodesOwnAndAnAdmins(t *testing.T) {
	f := NewFleet(time.Now, netip.MustParsePrefix("10.99.0.0/24"))
	m := withLayer(t, "one")
	switchTo(t, f, m)
	x := blobExports(f, "one")
	for client, want := range map[string]error{"10.77.0.11": nil, "::ffff:10.77.0.11": nil, "10.99.0.7": nil, "10.77.0.12": fs.ErrPermission} {
		addr := netip.MustParseAddr(client)
		_, mount := x.Export("/blobs/n1", addr)
		_, handle := x.ByID(rootfs.BlobsID(m.Manifest.String()), addr, true)
		if !errors.Is(mount, want) || !errors.Is(handle, want) {
			t.Errorf("%s: %v, %v", client, mount, handle)
		}
	}
	for _, p := range []string{"/blobs/n2", "/blobs/", "/blobs/n1/x"} {
		if _, err := x.Export(p, m.Node.Address); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", p, err)
		}
	}
	x.open = nil
	if _, err := x.Export("/blobs/n1", m.Node.Address); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a server without blobs: %v", err)
	}
}

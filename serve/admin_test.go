package serve

import (
	"errors"
	"io/fs"
	"net/netip"
	"testing"
	"time"

	"rhizome/serve/rootfs"
)

// A node reads its own root, an admin every root, and nobody else any; an
// admin's mount is no step of the node's boot.
func TestAnAdminReadsEveryRootAndOthersOnlyTheirOwn(t *testing.T) {
	f := NewFleet(time.Now, netip.MustParsePrefix("10.99.0.0/24"))
	one, two := imageOf(t, "one"), imageOf(t, "two")
	two.Node.Name, two.Node.Address, two.Node.MACs = "n2", netip.MustParseAddr("10.77.0.12"), nil
	if err := f.Switch([]*Machine{one, two}); err != nil {
		t.Fatal(err)
	}
	for client, may := range map[string][2]bool{
		"10.77.0.11": {true, false}, "10.77.0.12": {false, true}, "10.99.0.7": {true, true}, "::ffff:10.99.0.7": {true, true},
		"10.99.1.7": {}, "10.77.0.13": {},
	} {
		addr := netip.MustParseAddr(client)
		listed := len(nfsExports{fleet: f}.List(addr))
		for i, m := range []*Machine{one, two} {
			_, _, mount := f.Root(exportPath(m.Node.Name), addr)
			_, handle := f.ByID(m.View.ID(), addr)
			if may[i] {
				listed--
			}
			if (mount == nil) != may[i] || (handle == nil) != may[i] || !may[i] && !(errors.Is(mount, fs.ErrPermission) && errors.Is(handle, fs.ErrPermission)) {
				t.Errorf("%s and %s: mount %v, handle %v; may it: %t", client, m.Node.Name, mount, handle, may[i])
			}
		}
		if listed != 0 {
			t.Errorf("%s is shown %d exports more than it may mount", client, listed)
		}
	}
}

func TestAnAdminsMountBeginsNoBoot(t *testing.T) {
	f := NewFleet(time.Now, netip.MustParsePrefix("10.99.0.0/24"))
	old, next := imageOf(t, "old"), imageOf(t, "next")
	switchTo(t, f, old)
	if _, _, err := f.Root("/nodes/n1", netip.MustParseAddr("10.99.0.7")); err != nil {
		t.Fatal(err)
	}
	switchTo(t, f, next)
	if m := sees(t, f); m != next {
		t.Errorf("the node boots %s: an admin's mount held it", m.Manifest)
	}
}

// An address that changed hands reads nothing of the node that had it: its images may
// be open yet, and have its secrets.
func TestAnAddressThatChangedHandsOpensNothingOfItsFormerNode(t *testing.T) {
	f := NewFleet(time.Now, netip.MustParsePrefix("10.99.0.0/24"))
	old, next, other := imageOf(t, "old"), imageOf(t, "next"), imageOf(t, "other")
	switchTo(t, f, old)
	addr := old.Node.Address
	next.Node.Address = netip.MustParseAddr("10.77.0.12")
	other.Node.Name, other.Node.Address, other.Node.MACs = "n2", addr, nil
	if _, err := f.ByID(old.View.ID(), addr); err != nil {
		t.Fatal(err)
	}
	if err := f.Switch([]*Machine{next, other}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ByID(old.View.ID(), addr); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("n2, at the address that was n1's, opens n1's root: %v", err)
	}
	if _, err := f.BlobsByID(rootfs.BlobsID(old.Manifest.String()), addr); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("n2, at the address that was n1's, opens n1's blobs: %v", err)
	}
	if _, err := f.ByID(other.View.ID(), addr); err != nil {
		t.Errorf("n2's own root: %v", err)
	}
	if _, err := f.ByID(old.View.ID(), netip.MustParseAddr("10.99.0.7")); err != nil {
		t.Errorf("an admin: %v", err)
	}
}

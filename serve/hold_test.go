package serve

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
)

var card = net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1}

// imageOf is n1 as an image has it.
func imageOf(t *testing.T, image string) *Machine {
	t.Helper()
	layer, err := rootfs.MemoryLayer(rootfs.MemoryEntry{Path: "etc/image", Kind: rootfs.Regular, Mode: 0o644, Data: []byte(image)})
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		Node:     imagefmt.Node{Name: "n1", MACs: []string{card.String()}, Address: netip.MustParseAddr("10.77.0.11")},
		Manifest: digest.FromString(image),
	}
	if m.View, err = rootfs.NewView(m.Manifest.String(), []*rootfs.Layer{layer}); err != nil {
		t.Fatal(err)
	}
	return m
}

func switchTo(t *testing.T, f *Fleet, m *Machine) {
	t.Helper()
	if err := f.Switch([]*Machine{m}); err != nil {
		t.Fatal(err)
	}
}

// sees is what each protocol would give the node now; all must agree.
func sees(t *testing.T, f *Fleet) *Machine {
	t.Helper()
	byMAC, _ := f.ByMAC(card)
	byAddr, _ := f.ByAddr(byMAC.Node.Address)
	root, _, err := f.Root("/nodes/n1", byMAC.Node.Address)
	if err != nil {
		t.Fatal(err)
	}
	if byMAC != byAddr || byMAC != root {
		t.Errorf("DHCP gives %s, HTTP %s, MOUNT %s", byMAC.Manifest, byAddr.Manifest, root.Manifest)
	}
	return byMAC
}

// The pins are switched between a machine's first words and its mount: kernel
// and root are of one image, and the next boot takes the new one.
func TestABootGoesOnWithTheImageItBeganWith(t *testing.T) {
	f := NewFleet(time.Now)
	s := &Server{Fleet: f}
	old, next := imageOf(t, "old"), imageOf(t, "new")
	switchTo(t, f, old)
	s.dhcpStep(card, dhcp.PXE)
	switchTo(t, f, next)
	for _, k := range []dhcp.Kind{dhcp.IPXE, dhcp.Ipconfig, dhcp.Plain} {
		s.dhcpStep(card, k)
		if got := sees(t, f); got != old {
			t.Errorf("after kind %d of the same boot it gets %s", k, got.Manifest)
		}
	}
	s.nameNodes()(boot.Event{Kind: boot.MountDone, Addr: old.Node.Address, Digest: old.Manifest.String()})
	s.dhcpStep(card, dhcp.Plain)
	if got := sees(t, f); got != old {
		t.Errorf("while it runs, it gets %s", got.Manifest)
	}
	s.dhcpStep(card, dhcp.PXE)
	if got := sees(t, f); got != next {
		t.Errorf("the next boot gets %s", got.Manifest)
	}
	if v, err := f.ByID(old.View.ID(), old.Node.Address); err != nil || v != old.View {
		t.Errorf("a handle of the old root: %v", err)
	}
}

func TestWhereABootBegins(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		h    *hold
		step Step
		want bool
	}{
		"firmware, of a node never seen":       {nil, StepFirmware, true},
		"iPXE, of a node never seen":           {nil, StepIPXE, true},
		"an initramfs, of a node never seen":   {nil, StepSystem, true},
		"userland, of a node never seen":       {nil, StepOther, false},
		"a mount whose DHCP was not seen":      {nil, StepMount, false},
		"firmware, in the middle of a boot":    {&hold{last: now}, StepFirmware, true},
		"iPXE that firmware fetched":           {&hold{last: now, chained: true}, StepIPXE, false},
		"iPXE as the ROM, again":               {&hold{last: now}, StepIPXE, true},
		"iPXE of a node that runs":             {&hold{last: now, chained: true, mounted: true}, StepIPXE, true},
		"initramfs of this boot":               {&hold{last: ago(10 * time.Minute)}, StepSystem, false},
		"loader, again, after its first mount": {&hold{last: ago(time.Second), mounted: true}, StepSystem, false},
		"loader of a node that runs":           {&hold{last: ago(3 * time.Minute), mounted: true}, StepSystem, true},
		"the first mount, after long loading":  {&hold{last: ago(time.Hour)}, StepMount, false},
		"a mount again":                        {&hold{last: ago(time.Minute), mounted: true}, StepMount, false},
		"a mount after a long time":            {&hold{last: ago(time.Hour), mounted: true}, StepMount, true},
		"userland of a node that runs":         {&hold{last: ago(time.Hour), mounted: true}, StepOther, false},
	} {
		if got := c.h.begins(c.step, now); got != c.want {
			t.Errorf("%s: begins a boot: %v", name, got)
		}
	}
}

// What a node is told follows its identity: an image with another address for
// it is the one that holds.
func TestAnotherAddressEndsAHold(t *testing.T) {
	f := NewFleet(time.Now)
	switchTo(t, f, imageOf(t, "old"))
	f.Take(card, StepFirmware)
	moved := imageOf(t, "new")
	moved.Node.Address = netip.MustParseAddr("10.77.0.99")
	switchTo(t, f, moved)
	if got := sees(t, f); got != moved {
		t.Errorf("it gets %s", got.Manifest)
	}
}

// A server that is started anew knows from the store what nodes run, and a boot
// that it has seen begin is not taken back by that.
func TestARestartGoesOnWithWhatNodesRun(t *testing.T) {
	f := NewFleet(time.Now)
	old, next := imageOf(t, "old"), imageOf(t, "new")
	switchTo(t, f, next)
	f.Keep(old)
	f.Resume(old, time.Now())
	if got := sees(t, f); got != old {
		t.Errorf("it gets %s", got.Manifest)
	}
	f.Take(card, StepFirmware)
	f.Resume(old, time.Now())
	if got := sees(t, f); got != next {
		t.Errorf("its next boot gets %s", got.Manifest)
	}
}

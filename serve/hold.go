package serve

import (
	"net"
	"slices"
	"time"
)

// This file keeps one boot to one image. Between a machine's first words and
// the mount of its root lie minutes, in which pins may be switched: a kernel of
// one image with the root of another has no modules. So the image is held from
// the firmware's request on, and as long as the node runs from it.

// Step is what a machine does when it asks.
type Step uint8

// The steps that say something about where a boot begins.
const (
	// StepOther may come at any time: DHCP in userland, a file.
	StepOther Step = iota
	// StepFirmware is a network card's ROM or UEFI: nothing comes before it.
	StepFirmware
	// StepIPXE is iPXE: first if it is the ROM, second if a ROM fetched it.
	StepIPXE
	// StepSystem is a loader, kernel or initramfs: it asks before its root is
	// mounted, and a running node never does.
	StepSystem
	// StepMount is the mount of the node's root.
	StepMount
)

// A step that may be the first of a boot is one if the node, whose root is
// mounted, was silent as long as this. FreeBSD's loader asks and mounts again
// for every file it opens, within seconds; a running node may mount its root
// once more by hand.
const (
	systemSilence = 2 * time.Minute
	mountSilence  = 15 * time.Minute
)

// hold is the image that a node's boot goes on with.
type hold struct {
	machine *Machine
	// chained is set once firmware asked: an iPXE after it was fetched by it.
	chained bool
	// mounted is set once the root is mounted.
	mounted bool
	// last is when the node last took a step.
	last time.Time
}

// begins says whether a step is the first of a new boot. h is nil where nothing
// is known of the node. Where another server answers DHCP, no beginning is
// seen: nothing is held then, or an old image would be held for good.
func (h *hold) begins(s Step, now time.Time) bool {
	if h == nil {
		return s == StepFirmware || s == StepIPXE || s == StepSystem
	}
	silent := now.Sub(h.last)
	switch s {
	case StepFirmware:
		return true
	case StepIPXE:
		return !h.chained || h.mounted || silent > mountSilence
	case StepSystem:
		return h.mounted && silent > systemSilence
	case StepMount:
		return h.mounted && silent > mountSilence
	}
	return false
}

// Take notes a step of the node with this card. A step that begins a boot lets
// go of the image of the former one.
func (f *Fleet) Take(mac net.HardwareAddr, s Step) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.byMAC[mac.String()]; m != nil {
		f.take(m, s)
	}
}

func (f *Fleet) take(next *Machine, s Step) {
	now, h := f.now(), f.holds[next.Node.Name]
	switch {
	case h.begins(s, now):
		h = &hold{machine: next}
		f.holds[next.Node.Name] = h
	case h == nil:
		return
	}
	h.last = now
	h.chained = h.chained || s == StepFirmware
}

// Mounted notes that a node has the root of its boot mounted.
func (f *Fleet) Mounted(m *Machine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.holds[m.Node.Name]; h != nil && h.machine == m {
		h.mounted = true
	}
}

// Resume holds the image that a node had mounted before this server began. It is
// not for a server whose nodes get their addresses elsewhere.
func (f *Fleet) Resume(m *Machine, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holds[m.Node.Name] == nil {
		f.holds[m.Node.Name] = &hold{machine: m, mounted: true, last: since}
	}
}

// held is the machine that a node's boot goes on with: the held one, unless the
// node has another card or address by now. The caller has the lock.
func (f *Fleet) held(next *Machine) *Machine {
	h := f.holds[next.Node.Name]
	if h == nil || h.machine.Node.Address != next.Node.Address || !slices.Equal(h.machine.Node.MACs, next.Node.MACs) {
		return next
	}
	return h.machine
}

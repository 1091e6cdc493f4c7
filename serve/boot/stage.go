package boot

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Stage is how far a boot has come.
type Stage int

// The stages, in order.
const (
	Unseen Stage = iota
	// Asked: a request for an address came.
	Asked
	// Addressed: an address was given, or a boot program named (proxy).
	Addressed
	// Loaded: a boot program or its script was sent whole.
	Loaded
	// Kernel: a kernel or initramfs was sent whole.
	Kernel
	// System: what was loaded asks for an address itself.
	System
	// Mounted: the root is mounted.
	Mounted
	// Called: the root is read.
	Called
	// Init: the init program was looked up, so the kernel has its root.
	Init
	// Up: the node itself says that it is up.
	Up
)

var stageNames = [...]string{
	"was not seen", "asks for an address", "has an address", "fetched its boot program", "fetched its kernel",
	"its system asks for an address", "mounted its root", "reads its root", "starts init", "is up",
}

// String says it as the node's verb.
func (s Stage) String() string { return stageNames[s] }

// MarshalText writes a stage into JSON as people read it.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Stage) UnmarshalText(text []byte) error {
	i := slices.Index(stageNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%q is no stage of a boot", text)
	}
	*s = Stage(i)
	return nil
}

// stageOf is the stage that an event shows, given what was reached before.
func stageOf(e Event, before Stage) Stage {
	switch e.Kind {
	case DHCPDiscover, DHCPRequest, DHCPUnknown:
		return Asked
	case DHCPOffer:
		if e.File != "" {
			return Addressed
		}
		return Asked
	case DHCPAck, DHCPBootp:
		if e.Addr.IsValid() && before >= Loaded && !fromBootProgram(e.Client) {
			return System
		}
		return Addressed
	case TFTPDone, HTTPDone:
		return loaded(e)
	case MountDone:
		if strings.HasPrefix(e.File, "/nodes/") {
			return Mounted
		}
	case NFSFirstCall:
		return Called
	case NFSInit, NodeBoot, NodeStep:
		return Init
	case NodeUp, NodeBack:
		return Up
	}
	return Unseen
}

// loaded tells kernels from the programs before them by their names; a blob is
// fetched by a node that runs.
func loaded(e Event) Stage {
	if e.Bytes == 0 {
		return Unseen // firmware that only wanted to know the size
	}
	name := strings.ToLower(path.Base(e.File))
	for _, part := range []string{"vmlinu", "bzimage", "initrd", "initramfs", "kernel"} {
		if strings.Contains(name, part) {
			return Kernel
		}
	}
	if strings.HasPrefix(e.File, "/blobs/") || strings.HasPrefix(e.File, "/node/") {
		return Unseen
	}
	return Loaded
}

// Reached is the furthest stage of a boot, and where in its events that was.
func (b Boot) Reached() (s Stage, at int) {
	for i, e := range b.Events {
		if now := stageOf(e, s); now > s {
			s, at = now, i
		}
	}
	return s, at
}

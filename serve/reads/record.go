package reads

import (
	"slices"
	"time"
)

// Version is that of a Record.
const Version = 1

// Record is what one node asked of its root in one boot.
type Record struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	// Began is when the node mounted its root: the boot's name.
	Began time.Time `json:"began"`
	// Digest is the manifest, Mode the node's root mode.
	Digest string `json:"digest,omitempty"`
	Mode   string `json:"mode,omitempty"`
	// Bundle says that the node held a precache bundle: what is in it was not
	// asked for.
	Bundle bool `json:"bundle,omitempty"`
	// Partial says that serve began in the middle of the boot, Truncated that
	// there was no memory to count all of it.
	Partial   bool `json:"partial,omitempty"`
	Truncated bool `json:"truncated,omitempty"`
	// Windows are the boot itself and the jobs that the node named.
	Windows []Window `json:"windows"`
}

// Window is a part of a boot.
type Window struct {
	// Name is BootWindow, or that of a job.
	Name  string    `json:"name"`
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Open says that nothing ended it: the node never said that it is up.
	Open bool `json:"open,omitempty"`
	// Files are those with most calls first.
	Files []File `json:"files"`
}

// File is what was asked about one path.
type File struct {
	Path string `json:"path"`
	Counts
}

func (r *Record) take(root Root) {
	r.Mode, r.Bundle = root.Mode, root.Bundle
	if r.Digest == "" {
		r.Digest = root.View.Digest()
	}
}

// clone is the record as it is now; windows that are closed never change.
func (r *Record) clone() Record {
	c := *r
	c.Windows = slices.Clone(r.Windows)
	return c
}

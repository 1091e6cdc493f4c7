package serve

import (
	"net/netip"

	"rhizome/serve/nfs"
	"rhizome/serve/reads"
)

// meter gives what counts a node's use of its own root.
func (s *Server) meter(client netip.Addr, fsys nfs.FS) nfs.Meter {
	if s.Reads == nil {
		return nil
	}
	if m := s.Reads.Meter(client, fsys.ID()); m != nil {
		return m
	}
	return nil
}

// ReadRoots tells a reads.Book whose root an image's id names. Whoever else may
// look into it is not counted.
func ReadRoots(f *Fleet) func(client netip.Addr, id [16]byte) (reads.Root, bool) {
	return func(client netip.Addr, id [16]byte) (reads.Root, bool) {
		f.mu.RLock()
		defer f.mu.RUnlock()
		r := f.roots[id]
		if r == nil {
			return reads.Root{}, false
		}
		m := r.machine
		if m.Node.Address != client.Unmap() {
			return reads.Root{}, false
		}
		return reads.Root{Node: m.Node.Name, Mode: m.Node.Root, Bundle: m.Node.Bundle != "", View: m.View}, true
	}
}

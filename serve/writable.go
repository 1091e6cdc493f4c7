package serve

import (
	"net/netip"

	"rhizome/serve/nfs"
	"rhizome/serve/rootfs"
	"rhizome/serve/volume"
)

// VolumeNodes is what the writable exports ask of a fleet.
func VolumeNodes(f *Fleet) volume.Nodes { return volumeNodes{f} }

type volumeNodes struct{ fleet *Fleet }

func (v volumeNodes) ByAddr(addr netip.Addr) (volume.Node, bool) {
	m, ok := v.fleet.ByAddr(addr)
	if !ok {
		return volume.Node{}, false
	}
	return volume.Node{Cluster: m.Cluster.Name, Node: m.Node, View: m.View}, true
}

// ByDigest looks among all roots that are readable, for a node goes on with
// the image it began with; and on the shelf.
func (v volumeNodes) ByDigest(digest string) *rootfs.View {
	if digest == "" {
		return nil
	}
	m, err := v.fleet.Open(rootfs.ImageID(digest))
	if err != nil {
		return nil
	}
	return m.View
}

// lister is a backend that can say what a client may mount.
type lister interface {
	List(client netip.Addr) []nfs.Export
}

// writableExports are what the backends have for a client, each once.
func writableExports(backends []nfs.Mounted, client netip.Addr) []nfs.Export {
	var all []nfs.Export
	asked := map[nfs.Backend]bool{}
	for _, b := range backends {
		if l, ok := b.Backend.(lister); ok && !asked[b.Backend] {
			asked[b.Backend] = true
			all = append(all, l.List(client)...)
		}
	}
	return all
}

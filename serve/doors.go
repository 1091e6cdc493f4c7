package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/bootspec"
	"rhizome/serve/dhcp"
	"rhizome/serve/nfs"
	"rhizome/serve/node/nodeapi"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
)

// This file lets each protocol see the fleet through the small interface that
// stands at its own door.

// dhcpNodes is what DHCP asks of the fleet.
type dhcpNodes struct{ fleet *Fleet }

func (d dhcpNodes) ByMAC(mac net.HardwareAddr) (dhcp.Machine, bool) {
	m, ok := d.fleet.ByMAC(mac)
	if !ok {
		return dhcp.Machine{}, false
	}
	return dhcp.Machine{Cluster: m.Cluster, Node: m.Node, Digest: m.Manifest.String()}, true
}

// dhcpStep tells the fleet where in its boot a machine is that asks for an
// address.
func (s *Server) dhcpStep(mac net.HardwareAddr, k dhcp.Kind) {
	step := StepOther
	switch k {
	case dhcp.PXE, dhcp.HTTPBoot:
		step = StepFirmware
	case dhcp.IPXE:
		step = StepIPXE
	case dhcp.FreeBSDLoader, dhcp.FreeBSDKernel, dhcp.Ipconfig:
		step = StepSystem
	}
	s.Fleet.Take(mac, step)
}

// bootMachine is what TFTP and HTTP see of the machine behind an address.
func (f *Fleet) bootMachine(httpBase string) bootspec.ByAddr {
	return func(a netip.Addr) (bootspec.Machine, bool) {
		m, ok := f.ByAddr(a)
		if !ok {
			return bootspec.Machine{}, false
		}
		return bootspec.Machine{
			Cluster: m.Cluster, Node: m.Node, Digest: m.Manifest.String(),
			Tree: m.Tree(), Blobs: m.blobs(), HTTP: httpBase,
		}, true
	}
}

// blobs are what the node's own manifest names.
func (m *Machine) blobs() []bootspec.Blob {
	var out []bootspec.Blob
	for i, l := range m.Layers {
		out = append(out, bootspec.Blob{
			Digest:  l.Digest.String(),
			AnyUser: m.Node.Bundle != "" && !m.Node.BundlePrivate && m.DiffIDs[i].String() == m.Node.Bundle,
		})
	}
	return out
}

// Tree is the machine's root as TFTP and HTTP see it.
func (m *Machine) Tree() bootspec.Tree { return viewTree{m.View} }

// viewTree opens files of a view for TFTP and HTTP.
type viewTree struct{ view *rootfs.View }

func (t viewTree) Open(p string) (bootspec.File, error) {
	r, err := t.view.Open(p)
	if err != nil {
		return bootspec.File{}, err
	}
	a := r.Attr()
	file := bootspec.File{ReaderAt: r, Name: path.Clean("/" + p), Size: int64(a.Size), ModTime: time.Unix(a.Sec, int64(a.Nsec))}
	if sum, err := t.view.BodyDigest(r.File()); err == nil {
		file.Digest = fmt.Sprintf("sha256:%x", sum)
	}
	return file, nil
}

// nfsExports is what NFS asks of the fleet.
type nfsExports struct {
	fleet    *Fleet
	writable []nfs.Mounted
	// open opens a blob to be read in pieces; nil exports no blobs.
	open func(digest string) (rootfs.BlobReader, error)
}

func (n nfsExports) Export(p string, client netip.Addr) (nfs.FS, error) {
	find, show := n.fleet.Root, showRoot
	if n.open != nil && strings.HasPrefix(p, blobsPrefix) {
		find, show = n.fleet.Blobs, n.showBlobs
	}
	m, below, err := find(p, client)
	if err != nil {
		return nil, err
	}
	if below != "" {
		return nil, fmt.Errorf("%q: %w: nodes mount the whole of an export", p, fs.ErrNotExist)
	}
	return show(m), nil
}

func showRoot(m *Machine) nfs.FS { return m.View }

func (n nfsExports) showBlobs(m *Machine) nfs.FS {
	return rootfs.NewBlobs(m.Manifest.String(), m.blobFiles(), n.open)
}

// blobFiles are the blobs that a node may have, each once: layers that HTTP
// would give it.
func (m *Machine) blobFiles() []rootfs.Blob {
	var all []rootfs.Blob
	for _, l := range m.Layers {
		b := rootfs.Blob{Name: nodeapi.BlobFile(l.Digest.String()), Digest: l.Digest.String(), Size: l.Size}
		if l.Digest.Algorithm() == digest.SHA256 && !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	return all
}

// ByID opens an image again that was closed, or never open here, if it must.
func (n nfsExports) ByID(id [16]byte, client netip.Addr, mayWait bool) (nfs.FS, error) {
	fsys, err := n.opened(id, client)
	if !errors.Is(err, rootfs.ErrStale) || !n.fleet.mayReopen(id, client) {
		return fsys, err
	}
	if !mayWait {
		return nil, nfs.ErrLater
	}
	if err := n.fleet.Reopen(id, client); err != nil {
		return nil, err
	}
	if fsys, err = n.opened(id, client); errors.Is(err, rootfs.ErrStale) {
		return nil, nfs.ErrLater // it was closed again meanwhile
	}
	return fsys, err
}

func (n nfsExports) opened(id [16]byte, client netip.Addr) (nfs.FS, error) {
	v, err := n.fleet.ByID(id, client)
	if err == nil {
		return v, nil
	}
	if n.open == nil || !errors.Is(err, rootfs.ErrStale) {
		return nil, err
	}
	m, err := n.fleet.BlobsByID(id, client)
	if err != nil {
		return nil, err
	}
	return n.showBlobs(m), nil
}

// List leaves the blobs out: a node is told of them by its plan, and who looks
// at the list wants to know what is to be mounted.
func (n nfsExports) List(client netip.Addr) []nfs.Export {
	var all []nfs.Export
	for _, m := range n.fleet.Machines() {
		if n.fleet.mayRead(m, client) {
			all = append(all, nfs.Export{Path: exportPath(m.Node.Name), Groups: []string{m.Node.Address.String()}})
		}
	}
	return append(all, writableExports(n.writable, client)...)
}

func (n nfsExports) Generation() uint64 { return n.fleet.Generation() }

// Secrets gives the files of one secret of a node: made once, or given by the
// operator.
type Secrets func(cluster, node string, s imagefmt.Secret) ([]rootfs.MemoryEntry, error)

// Overlay is the layer of a node's secrets; nil where it has none.
func (s Secrets) Overlay(c imagefmt.Cluster, n imagefmt.Node) (*rootfs.Layer, error) {
	var all []rootfs.MemoryEntry
	for _, want := range n.Secrets {
		files, err := s(c.Name, n.Name, want)
		if err != nil {
			return nil, fmt.Errorf("the secret %q at %q: %w", want.Kind, want.Path, err)
		}
		all = append(all, files...)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return rootfs.MemoryLayer(all...)
}

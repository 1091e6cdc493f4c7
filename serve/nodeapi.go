package serve

import (
	"net/netip"
	"path"
	"runtime"
	"strconv"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/serve/node/nodeapi"
	"rhizome/serve/volume"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Plan is what the early program of the node with an address does, from the
// image of the boot that the node is in.
func (f *Fleet) Plan(addr netip.Addr) (nodeapi.Plan, bool) {
	m, ok := f.ByAddr(addr)
	if !ok {
		return nodeapi.Plan{}, false
	}
	return m.plan(), true
}

func (m *Machine) plan() nodeapi.Plan {
	server := m.Cluster.Network.Server.String()
	p := nodeapi.Plan{
		Node: m.Node.Name, Cluster: m.Cluster.Name, Digest: m.Manifest.String(), OS: m.Node.Boot.OS, Root: m.Node.Root,
		Export: server + ":" + exportPath(m.Node.Name),
	}
	if p.Root == "" {
		p.Root = "nfs"
	}
	for i := range m.Layers {
		l := m.planLayer(i)
		if p.Root == "ram" {
			p.Layers = append(p.Layers, l)
		}
		if p.Root == "precache" && l.DiffID == m.Node.Bundle {
			l.Folders, l.Private, l.First = m.Node.BundleFolders, m.Node.BundlePrivate, firstSpan(m.Layers[i])
			p.Bundle = &l
		}
	}
	if p.Bundle != nil || p.Layers != nil {
		p.Blobs = server + ":" + blobsPath(m.Node.Name)
	}
	if m.Node.Persist != "" {
		p.Persist = &nodeapi.Mount{Path: m.Node.Persist, Export: server + ":" + volume.PersistPrefix + m.Node.Name}
	}
	if m.Node.Shared != "" {
		p.Shared = &nodeapi.Mount{Path: m.Node.Shared, Export: server + ":" + volume.SharedPrefix + m.Cluster.Name}
	}
	for _, c := range m.Node.CopyOnWrite {
		c = path.Clean("/" + c)
		p.CopyOnWrite = append(p.CopyOnWrite, nodeapi.Mount{Path: c, Export: server + ":" + path.Join(volume.CopyOnWritePrefix, m.Node.Name, c)})
	}
	return p
}

func (m *Machine) planLayer(i int) nodeapi.Layer {
	d := m.Layers[i]
	l := nodeapi.Layer{
		URL:    "http://" + m.Cluster.Network.Server.String() + "/blobs/" + d.Digest.Algorithm().String() + "/" + d.Digest.Encoded(),
		Digest: d.Digest.String(), DiffID: m.DiffIDs[i].String(), Size: d.Size, Index: indexSpan(d),
	}
	// The view's layers are the manifest's, with that of secrets above.
	if layers := m.View.Layers(); i < len(layers) {
		l.Uncompressed = layers[i].Index().StreamSize()
	}
	runtime.KeepAlive(m.View)
	return l
}

// firstSpan is the part of a bundle that a boot waits for, where there is one.
func firstSpan(d ocispec.Descriptor) *nodeapi.Span {
	size, err := strconv.ParseInt(d.Annotations[imagefmt.AnnotationFirstSize], 10, 64)
	if err != nil || size <= 0 || size > d.Size {
		return nil
	}
	return &nodeapi.Span{Size: size, Digest: d.Annotations[imagefmt.AnnotationFirstDigest]}
}

// indexSpan is where a layer's tree index lies, where its descriptor says so.
func indexSpan(d ocispec.Descriptor) *nodeapi.Span {
	offset, err1 := strconv.ParseInt(d.Annotations[layerfmt.AnnotationIndexOffset], 10, 64)
	size, err2 := strconv.ParseInt(d.Annotations[layerfmt.AnnotationIndexSize], 10, 64)
	if err1 != nil || err2 != nil {
		return nil
	}
	return &nodeapi.Span{Offset: offset, Size: size, Digest: d.Annotations[layerfmt.AnnotationIndexDigest]}
}

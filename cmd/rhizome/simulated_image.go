package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"rhizome/pipeline/image"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layout"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/simulate"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// simulatedTag names the image that is made for a simulation.
const simulatedTag = "simulated:nodes"

// prepareSimulation makes a store in dir that holds a cluster of simulated
// nodes: the layers of the image's first node, linked, under new identities.
func (a *app) prepareSimulation(ctx context.Context, name, dir string, o simulateOptions) (simulate.Plan, error) {
	plan := simulate.Plan{Server: netip.MustParseAddr(simulatedServer), Relay: netip.MustParseAddr(simulatedRelay)}
	s, err := a.openStore()
	if err != nil {
		return plan, err
	}
	index, err := resolve(ctx, s, name)
	if err != nil {
		return plan, err
	}
	nodes, err := s.Nodes(ctx, index)
	if err != nil || len(nodes) == 0 {
		return plan, errors.Join(err, fmt.Errorf("reading the nodes of %q", name))
	}
	return plan, a.withMachine(ctx, name, nodes[0].Node, func(m *serve.Machine) error {
		if m.Node.Boot.OS != "linux" {
			return fmt.Errorf("node %q boots %s; simulated machines boot as Linux does", m.Node.Name, m.Node.Boot.OS)
		}
		if plan.Files, err = bootFiles(m.View, o.read); err != nil {
			return err
		}
		images, err := simulatedCluster(m, o.nodes)
		if err != nil {
			return err
		}
		for _, n := range images.nodes {
			plan.Nodes = append(plan.Nodes, simulate.Node{Name: n.Name, MAC: n.MACs[0], Addr: n.Address})
		}
		return storeSimulated(ctx, s.Images(), dir, m.Layers, images)
	})
}

// simulatedImages are the documents of a simulated cluster.
type simulatedImages struct {
	nodes []imagefmt.Node
	blobs []image.Blob
	index image.Blob
}

// simulatedCluster gives n identities to one machine's root. Secrets and
// writable exports would be made for nobody, so they are left out.
func simulatedCluster(m *serve.Machine, n int) (simulatedImages, error) {
	cluster := imagefmt.Cluster{Name: "simulated", Network: imagefmt.Network{
		Subnet: netip.MustParsePrefix(simulatedNet), Server: netip.MustParseAddr(simulatedServer),
	}}
	layers := make([]image.Layer, len(m.Layers))
	for i, l := range m.Layers {
		layers[i] = image.Layer{Descriptor: l, DiffID: m.DiffIDs[i], Role: l.Annotations[imagefmt.AnnotationRole], Stage: l.Annotations[imagefmt.AnnotationStage]}
	}
	var out simulatedImages
	var manifests []ocispec.Descriptor
	for i := range n {
		node := m.Node
		node.Name = fmt.Sprintf("sim%d", i+1)
		node.MACs = []string{fmt.Sprintf("52:54:99:00:%02x:%02x", i>>8, i&0xff)}
		node.Address = netip.AddrFrom4([4]byte{10, 99, byte(1 + i/250), byte(1 + i%250)})
		node.Secrets, node.Persist, node.CopyOnWrite = nil, "", nil
		doc, err := image.ForNode(image.Platform{OS: "linux", Arch: "amd64"}, time.Unix(0, 0), cluster, node, layers)
		if err != nil {
			return out, err
		}
		out.nodes = append(out.nodes, node)
		out.blobs = append(out.blobs, doc.Config, doc.Manifest)
		manifests = append(manifests, doc.Manifest.Descriptor)
	}
	var err error
	out.index, err = image.Index(manifests)
	out.blobs = append(out.blobs, out.index)
	return out, err
}

func storeSimulated(ctx context.Context, from *layout.Layout, dir string, layers []ocispec.Descriptor, images simulatedImages) error {
	to, err := store.Open(dir, store.Options{Who: who()})
	if err != nil {
		return err
	}
	for _, l := range layers {
		if err := linkBlob(ctx, from, to.Images(), l); err != nil {
			return fmt.Errorf("taking over the layer %s: %w", l.Digest, err)
		}
	}
	for _, b := range images.blobs {
		if err := to.Images().Push(ctx, b.Descriptor, bytes.NewReader(b.Data)); err != nil {
			return err
		}
	}
	return to.Tag(ctx, images.index.Descriptor, simulatedTag)
}

// linkBlob gives a blob a second name in another layout, or copies it where the
// other layout lies on another disk.
func linkBlob(ctx context.Context, from, to *layout.Layout, d ocispec.Descriptor) error {
	old, err := from.Path(d.Digest)
	if err != nil {
		return err
	}
	at, err := to.Path(d.Digest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	if err := os.Link(old, at); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	return copyBlob(ctx, from, to, d)
}

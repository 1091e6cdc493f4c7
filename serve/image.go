package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"weak"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Source is where serve reads images from: the store.
type Source interface {
	// Document returns a manifest's, index's or config's bytes, checked
	// against the descriptor's digest.
	Document(ctx context.Context, d ocispec.Descriptor) ([]byte, error)
	// Layer opens the blob that holds a layer in rhizome's format: the layer
	// itself, or its seekable copy where somebody else made it. The
	// descriptor that comes back belongs to what was opened.
	Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (LayerBlob, ocispec.Descriptor, error)
}

// LayerBlob is a layer's blob, open.
type LayerBlob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Machine is one node as serve sees it: who it is, how it boots, and the root
// it boots from.
type Machine struct {
	Cluster  imagefmt.Cluster
	Node     imagefmt.Node
	Manifest digest.Digest
	View     *rootfs.View
	// Layers are the manifest's, lowest first, as the registry knows them.
	Layers []ocispec.Descriptor
	// DiffIDs stand beside Layers.
	DiffIDs []digest.Digest
}

// Image is a cluster image, loaded: one machine per node.
type Image struct {
	Digest   digest.Digest
	Machines []*Machine
}

// Overlay gives the layer that lies over one node's image and in no digest:
// its secrets. It returns nil where there is none.
type Overlay func(c imagefmt.Cluster, n imagefmt.Node) (*rootfs.Layer, error)

// Loader opens images. Layers that several nodes or images share are opened
// once, and are open as long as a view has them: when the garbage collector finds
// that none does any more, the layer's index is unmapped, its room in the cache
// is free and its blob is closed. So nobody counts who uses a layer, no call pays
// for it, and nobody can read what is unmapped.
type Loader struct {
	Source  Source
	Cache   *rootfs.Cache
	Overlay Overlay
	// Map leaves the indexes of layers that lie in files of their own where
	// they lie: they take page cache instead of heap. Names and link texts that
	// views give are then good until Close only.
	Map bool

	mu     sync.Mutex
	layers map[digest.Digest]*openLayer // by DiffID
}

// openLayer is a layer that some view has, or had.
type openLayer struct {
	layer weak.Pointer[rootfs.Layer]
	close func() error // closes the blob, once
}

// Image loads every node of a cluster image.
func (l *Loader) Image(ctx context.Context, index ocispec.Descriptor) (*Image, error) {
	data, err := l.Source.Document(ctx, index)
	if err != nil {
		return nil, fmt.Errorf("reading the index %s: %w", index.Digest, err)
	}
	var idx ocispec.Index
	if err := json.Unmarshal(data, &idx); err != nil {
		return nil, fmt.Errorf("reading the index %s: %w", index.Digest, err)
	}
	img := &Image{Digest: index.Digest}
	for _, m := range idx.Manifests {
		machine, err := l.Machine(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("loading node %q: %w", m.Annotations[imagefmt.AnnotationNode], err)
		}
		img.Machines = append(img.Machines, machine)
	}
	return img, img.check()
}

// Machine loads one node from its manifest.
func (l *Loader) Machine(ctx context.Context, d ocispec.Descriptor) (*Machine, error) {
	machine, err := l.read(ctx, d)
	if err != nil {
		return nil, err
	}
	machine.View, err = l.view(ctx, machine)
	return machine, err
}

// read is Machine without the root: it opens no layer and makes no secret.
func (l *Loader) read(ctx context.Context, d ocispec.Descriptor) (*Machine, error) {
	data, err := l.Source.Document(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", d.Digest, err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("reading the manifest %s: %w", d.Digest, err)
	}
	config, err := l.config(ctx, m.Config)
	if err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		return nil, fmt.Errorf("manifest %s has %d layers, its config %d DiffIDs", d.Digest, len(m.Layers), len(config.RootFS.DiffIDs))
	}
	machine := &Machine{Manifest: d.Digest, Layers: m.Layers, DiffIDs: config.RootFS.DiffIDs}
	machine.Cluster, machine.Node, err = imagefmt.Parse(config.Config.Labels)
	return machine, err
}

func (l *Loader) config(ctx context.Context, d ocispec.Descriptor) (*ocispec.Image, error) {
	data, err := l.Source.Document(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("reading the image config %s: %w", d.Digest, err)
	}
	var img ocispec.Image
	if err := json.Unmarshal(data, &img); err != nil {
		return nil, fmt.Errorf("reading the image config %s: %w", d.Digest, err)
	}
	return &img, nil
}

func (l *Loader) view(ctx context.Context, m *Machine) (*rootfs.View, error) {
	var layers []*rootfs.Layer
	for i, d := range m.Layers {
		layer, err := l.layer(ctx, d, m.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("opening layer %s: %w", d.Digest, err)
		}
		layers = append(layers, layer)
	}
	if l.Overlay != nil {
		over, err := l.Overlay(m.Cluster, m.Node)
		if err != nil {
			return nil, fmt.Errorf("laying the node's secrets over its root: %w", err)
		}
		if over != nil {
			layers = append(layers, over)
		}
	}
	return rootfs.NewView(m.Manifest.String(), layers)
}

// layer opens a layer, or returns the one that is open already.
func (l *Loader) layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (*rootfs.Layer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.layers[diffID]; o != nil {
		if open := o.layer.Value(); open != nil {
			return open, nil
		}
	}
	blob, desc, err := l.Source.Layer(ctx, d, diffID)
	if err != nil {
		return nil, err
	}
	layer, err := l.open(blob, desc)
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	l.keep(diffID, layer, blob)
	return layer, nil
}

// open opens a layer by the index in its blob.
func (l *Loader) open(blob LayerBlob, desc ocispec.Descriptor) (*rootfs.Layer, error) {
	name := desc.Digest.String()
	if f, ok := blob.(layerfmt.FileReader); ok && l.Map {
		return rootfs.OpenLayerFile(name, f, blob.Size(), desc.Annotations, l.Cache)
	}
	index, err := layerfmt.ReadTail(blob, blob.Size(), desc.Annotations)
	if err != nil {
		return nil, err
	}
	return rootfs.OpenLayer(name, blob, blob.Size(), index, l.Cache)
}

// keep remembers a layer for others who want it. The caller has the lock.
func (l *Loader) keep(diffID digest.Digest, layer *rootfs.Layer, blob io.Closer) {
	if l.layers == nil {
		l.layers = map[digest.Digest]*openLayer{}
	}
	o := &openLayer{weak.Make(layer), sync.OnceValue(blob.Close)}
	l.layers[diffID] = o
	// Not where the runtime cleans up: the lock may be held while a layer is
	// fetched from a registry.
	runtime.AddCleanup(layer, func(o *openLayer) { go l.drop(diffID, o) }, o)
}

// drop closes a layer that nobody can reach any more.
func (l *Loader) drop(diffID digest.Digest, o *openLayer) {
	_ = o.close() // it was only read
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.layers[diffID] == o {
		delete(l.layers, diffID)
	}
}

// Open counts the layers that are open: each is a file descriptor, and a mapping.
func (l *Loader) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.layers)
}

// Close closes every layer that is open. Views on them are dead then.
func (l *Loader) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, o := range l.layers {
		if layer := o.layer.Value(); layer != nil {
			err = errors.Join(err, layer.Close())
		}
		err = errors.Join(err, o.close())
	}
	l.layers = nil
	return err
}

// check refuses an image in which two nodes claim one identity.
func (img *Image) check() error {
	if len(img.Machines) == 0 {
		return fmt.Errorf("the image %s has no node: was it built by rhizome?", img.Digest)
	}
	macs, addrs, names := map[string]string{}, map[netip.Addr]string{}, map[string]bool{}
	for _, m := range img.Machines {
		n := m.Node
		if names[n.Name] {
			return fmt.Errorf("the image %s has two nodes named %q", img.Digest, n.Name)
		}
		names[n.Name] = true
		if other, taken := addrs[n.Address]; taken {
			return fmt.Errorf("nodes %q and %q both claim the address %s", other, n.Name, n.Address)
		}
		addrs[n.Address] = n.Name
		for _, mac := range n.MACs {
			hw, err := net.ParseMAC(mac)
			if err != nil {
				return fmt.Errorf("node %q: %w", n.Name, err)
			}
			if other, taken := macs[hw.String()]; taken {
				return fmt.Errorf("nodes %q and %q both claim the MAC %s", other, n.Name, hw)
			}
			macs[hw.String()] = n.Name
		}
	}
	return nil
}

// Command versions is the part of bench/versions.sh that is rhizome's: it keeps
// one state of a root as the next version of a cluster image, with a small
// layer for every node.
package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"rhizome/pipeline/image"
	"rhizome/pipeline/layer"
	"rhizome/pipeline/tree"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/registry/store"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const usage = `usage: versions STORE TAR VERSION NODES [PARENT]
keeps the root in TAR as debian:VERSION for so many nodes, whole or as a delta layer on debian:PARENT`

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "versions:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 4 || len(args) > 5 {
		return fmt.Errorf("%s", usage)
	}
	nodes, err := strconv.Atoi(args[3])
	if err != nil {
		return fmt.Errorf("%s", usage)
	}
	s, err := store.Open(args[0], store.Options{})
	if err != nil {
		return err
	}
	b := bench{store: s, epoch: time.Unix(1793491200, 0)}
	base, err := b.base(ctx, args[1], strings.Join(args[4:], ""))
	if err != nil {
		return err
	}
	return b.keep(ctx, args[2], nodes, base)
}

type bench struct {
	store *store.Store
	epoch time.Time
}

// base stores a root's layers: those of the parent with a delta on top, or one.
func (b bench) base(ctx context.Context, tar, parent string) ([]image.Layer, error) {
	now, err := tree.FromTar(tar)
	if err != nil {
		return nil, err
	}
	if parent == "" {
		l, err := b.write(ctx, now, "base")
		return []image.Layer{l}, err
	}
	below, old, done, err := b.parent(ctx, "debian:"+parent)
	if err != nil {
		return nil, err
	}
	defer done()
	changed, err := tree.Diff(old, now)
	if err != nil {
		return nil, err
	}
	l, err := b.write(ctx, changed, "base")
	fmt.Printf("%d deltas deep, %.1f MB\n", len(below), float64(l.Descriptor.Size)/1e6)
	return append(below, l), err
}

// parent reads a version's base layers into one tree. done closes their blobs.
func (b bench) parent(ctx context.Context, name string) (layers []image.Layer, root *tree.Tree, done func(), err error) {
	index, err := b.store.Resolve(ctx, name)
	if err != nil {
		return nil, nil, nil, err
	}
	nodes, err := b.store.Nodes(ctx, index)
	if err != nil {
		return nil, nil, nil, err
	}
	refs, err := b.store.Layers(ctx, nodes[0].Descriptor)
	if err != nil {
		return nil, nil, nil, err
	}
	root = tree.New()
	var open []io.Closer
	done = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for _, r := range refs[:len(refs)-1] {
		blob, err := b.store.Layer(ctx, r.Descriptor, r.DiffID)
		if err != nil {
			return nil, nil, done, err
		}
		open = append(open, blob)
		t, err := layer.ReadTree(blob, blob.Size(), r.Descriptor.Annotations)
		if err != nil {
			return nil, nil, done, err
		}
		if err := root.Merge(t); err != nil {
			return nil, nil, done, err
		}
		layers = append(layers, image.Layer{Descriptor: r.Descriptor, DiffID: r.DiffID, Role: "base", Stage: "debian"})
	}
	return layers, root, done, nil
}

func (b bench) write(ctx context.Context, t *tree.Tree, role string) (image.Layer, error) {
	var sum layerfmt.Summary
	d, err := b.store.Ingest(ctx, layerfmt.MediaType, func(w io.Writer) (err error) {
		sum, err = layer.Write(w, t, b.epoch, 0)
		return err
	})
	d.Annotations = sum.Annotations()
	return image.Layer{Descriptor: d, DiffID: sum.DiffID, Role: role, Stage: role}, err
}

// keep stores a manifest, a config and a layer for every node, and the index.
func (b bench) keep(ctx context.Context, version string, nodes int, base []image.Layer) error {
	var manifests []ocispec.Descriptor
	for i := range nodes {
		m, err := b.node(ctx, i, base)
		if err != nil {
			return err
		}
		manifests = append(manifests, m)
	}
	index, err := image.Index(manifests)
	if err != nil {
		return err
	}
	if err := b.blob(ctx, index); err != nil {
		return err
	}
	return b.store.Tag(ctx, index.Descriptor, "debian:"+version)
}

func (b bench) node(ctx context.Context, i int, base []image.Layer) (ocispec.Descriptor, error) {
	t, err := tree.FromTar(fmt.Sprintf("nodes/%d.tar", i))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	l, err := b.write(ctx, t, "node")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	c := imagefmt.Cluster{Name: "rack", Network: imagefmt.Network{Subnet: netip.MustParsePrefix("10.0.0.0/8"), Server: netip.MustParseAddr("10.0.0.1")}}
	n := imagefmt.Node{Name: fmt.Sprintf("n%d", i), MACs: []string{fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&255)},
		Address: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Root: "nfs", Boot: imagefmt.Boot{OS: "linux"}}
	docs, err := image.ForNode(image.Platform{OS: "linux", Arch: "amd64"}, b.epoch, c, n, append(base[:len(base):len(base)], l))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, doc := range []image.Blob{docs.Config, docs.Manifest} {
		if err := b.blob(ctx, doc); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return docs.Manifest.Descriptor, nil
}

func (b bench) blob(ctx context.Context, doc image.Blob) error {
	_, err := b.store.Ingest(ctx, doc.Descriptor.MediaType, func(w io.Writer) error {
		_, err := w.Write(doc.Data)
		return err
	})
	return err
}

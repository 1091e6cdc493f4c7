package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/doctor"
	"rhizome/recipes"
	"rhizome/registry/imagefmt"
	"rhizome/registry/layout"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// subject is what doctor was asked about. All of it is zero where it was asked
// about the host alone.
type subject struct {
	// name is as it was typed.
	name   string
	recipe *recipes.Recipe
	lint   recipes.Findings
	pins   *store.Pins
	index  ocispec.Descriptor

	// What recipe and image agree on: who is served on which network.
	cluster string
	network imagefmt.Network
	members []imagefmt.Node
	epoch   time.Time
}

// takeRecipe makes the recipe's nodes those that the network is checked for.
func (s *subject) takeRecipe(r *recipes.Recipe) {
	w := r.Network
	s.cluster, s.epoch = r.Name, r.Epoch
	s.network = imagefmt.Network{Subnet: w.Subnet, Server: w.Server, Gateway: w.Gateway, DNS: w.DNS, Domain: w.Domain, MTU: w.MTU}
	for _, n := range r.Nodes {
		s.members = append(s.members, imagefmt.Node{Name: n.Name, MACs: n.MACs, Address: n.Address, Persist: n.Persist, PersistQuota: n.PersistQuota})
	}
}

// checkImage looks at every node's root of a cluster or image.
func (p *patient) checkImage(ctx context.Context) {
	if p.pins == nil && p.index.Digest == "" {
		return
	}
	loader := &serve.Loader{Source: storeSource{p.store}, Cache: rootfs.NewCache(readCache)}
	defer loader.Close()
	images := map[digest.Digest]*serve.Image{}
	load := func(d digest.Digest) (*serve.Image, error) { return p.loadImage(ctx, loader, images, d) }
	var roots doctor.Nodes
	for _, m := range p.machines(load) {
		p.add(roots.Check(doctor.Node{Node: m.Node, Tree: m.Tree()}))
		p.add(doctor.Secrets(p.secrets(ctx, m)))
		p.cluster, p.network = m.Cluster.Name, m.Cluster.Network
		p.members = append(p.members, m.Node)
	}
	p.add(doctor.Identities(p.network, p.members, p.otherClaims(ctx)))
	p.add(p.exports().Check())
	p.add(doctor.Gone(p.gone(ctx)))
}

// machines are the nodes of the cluster or image; each that cannot be served is
// a finding.
func (p *patient) machines(load func(digest.Digest) (*serve.Image, error)) (all []*serve.Machine) {
	head := p.index.Digest
	if p.pins != nil {
		head = p.pins.Head
	}
	img, err := load(head)
	if err != nil {
		p.add(doctor.Unusable("", err))
		return nil
	}
	if p.pins == nil {
		return img.Machines
	}
	for _, identity := range img.Machines {
		m, err := pinned(*p.pins, identity, load)
		if err != nil {
			p.add(doctor.Unusable(identity.Node.Name, err))
			continue
		}
		all = append(all, m)
	}
	return all
}

// loadImage loads an image once, if all its blobs are there.
func (p *patient) loadImage(ctx context.Context, l *serve.Loader, images map[digest.Digest]*serve.Image, d digest.Digest) (*serve.Image, error) {
	if images[d] != nil {
		return images[d], nil
	}
	desc, err := p.whole(ctx, d)
	if err != nil {
		return nil, err
	}
	img, err := l.Image(ctx, desc)
	if err != nil {
		return nil, err
	}
	images[d] = img
	p.takeEpoch(ctx, img)
	return img, nil
}

// takeEpoch reads when an image says that it was made.
func (p *patient) takeEpoch(ctx context.Context, img *serve.Image) {
	d, err := p.store.Images().Describe(ctx, img.Machines[0].Manifest)
	if err != nil {
		return
	}
	_, config, err := p.store.ManifestConfig(ctx, d)
	if err == nil && config.Created != nil && config.Created.After(p.epoch) {
		p.epoch = *config.Created
	}
}

// secrets are those of a node that nobody makes for it, when it is first served.
func (p *patient) secrets(ctx context.Context, m *serve.Machine) (all []doctor.Secret) {
	h := host{app: p.app, store: p.store}
	for _, s := range m.Node.Secrets {
		if s.Kind == "ssh-host-keys" || s.Kind == "cluster-key" {
			continue
		}
		one := doctor.Secret{Node: m.Node.Name}
		if _, one.Missing = h.secrets(ctx)(m.Cluster.Name, m.Node.Name, s); one.Missing == nil {
			one.File, one.Missing = h.secretName(m.Cluster.Name, m.Node.Name, s)
			if info, err := os.Stat(one.File); err == nil {
				one.Mode = info.Mode()
			}
		}
		all = append(all, one)
	}
	return all
}

// otherClaims are the nodes of the store's other clusters. One that cannot be
// read is told of where it is asked about.
func (p *patient) otherClaims(ctx context.Context) (all []doctor.Claim) {
	names, err := p.store.Clusters()
	if err != nil {
		return nil
	}
	for _, name := range names {
		k := known{nodes: map[nodeKey]*knownNode{}}
		pins, err := p.store.Pins(name)
		if err == nil {
			err = k.readCluster(ctx, p.store, name, pins)
		}
		if err != nil || name == p.name {
			continue
		}
		for _, n := range k.sorted() {
			if n.cluster != p.cluster { // a second name of the same cluster is no other
				all = append(all, doctor.Claim{Cluster: name, Node: n.node})
			}
		}
	}
	return all
}

// exports looks at the folders that nodes write to.
func (p *patient) exports() doctor.Exports {
	e := doctor.Exports{Disk: diskOf(p.dir), Unwritable: map[string]error{}}
	for _, n := range p.members {
		exports := len(n.CopyOnWrite)
		if n.Persist != "" {
			exports++
			if err := p.persistFolder(n.Name); err != nil {
				e.Unwritable[n.Name] = err
			}
		}
		if exports > 0 && n.PersistQuota > 0 {
			e.Nodes++
			e.Quotas += int64(exports) * n.PersistQuota
		}
	}
	return e
}

// persistFolder says why a node's folder cannot be written to; one that is not
// there yet is made by serve.
func (p *patient) persistFolder(node string) error {
	dir, err := p.store.PersistDir(p.cluster, node)
	if err != nil {
		return err
	}
	if err := writable(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%q: %w", dir, err)
	}
	return nil
}

// gone are the nodes of the cluster that run from what the store lacks.
func (p *patient) gone(ctx context.Context) map[string]string {
	all := map[string]string{}
	mounts, err := p.store.Mounts()
	if err != nil {
		return all
	}
	for _, m := range mounts {
		var missing *layout.NotFoundError
		if _, err := p.store.Images().Describe(ctx, m.Manifest); m.Cluster == p.cluster && errors.As(err, &missing) {
			all[m.Node] = m.Manifest.String()
		}
	}
	return all
}

// whole describes an image of which every blob is here.
func (p *patient) whole(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	desc, err := p.store.Images().Describe(ctx, d)
	if err == nil {
		err = p.store.Images().Complete(ctx, desc)
	}
	return desc, err
}

// dangling are images that something names and that are not whole, and pins
// that cannot be read.
func (p *patient) dangling(ctx context.Context) (all []string) {
	names := map[digest.Digest][]string{}
	tags, err := p.store.Images().Tags(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	for _, t := range tags {
		names[t.Descriptor.Digest] = append(names[t.Descriptor.Digest], t.Name)
	}
	clusters, err := p.store.Clusters()
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range clusters {
		pins, err := p.store.Pins(name)
		if err != nil {
			all = append(all, fmt.Sprintf("the pins of the cluster %q: %v", name, err))
			continue
		}
		for _, d := range pinTargets(pins) {
			names[d] = append(names[d], "the cluster "+name)
		}
	}
	for _, d := range slices.Sorted(maps.Keys(names)) {
		if _, err := p.whole(ctx, d); err != nil {
			all = append(all, fmt.Sprintf("%v (named by %s)", err, strings.Join(names[d], ", ")))
		}
	}
	return all
}

// pinTargets are the images that a cluster needs, each once.
func pinTargets(pins store.Pins) []digest.Digest {
	targets := []digest.Digest{pins.Head, pins.Boot}
	for _, d := range pins.Nodes {
		targets = append(targets, d)
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}

// writable says why this user cannot make files in a folder.
func writable(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("it is no folder")
	}
	// access(2) knows of read-only file systems and of access lists, too.
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return err
	}
	return nil
}

// nearest is the deepest folder of a path that is there.
func nearest(dir string) string {
	for {
		if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOENT) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

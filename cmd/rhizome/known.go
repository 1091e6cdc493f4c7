package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/registry/store"
	"rhizome/serve/boot"

	"github.com/opencontainers/go-digest"
)

// knownNode is all that the store knows of a node, from three sources: the pins
// and the image that they name, the mounts, and the events.
type knownNode struct {
	// cluster is the name that the images give, under which events and mounts
	// are kept; pinned is the name that `pin` made, often the same.
	cluster, pinned string
	node            imagefmt.Node
	// image is what it boots next, and manifest its own part of that.
	image, manifest digest.Digest
	mount           store.Mount
	tracker         boot.Tracker
}

// lastSeen is zero for a node that nothing was seen of.
func (k *knownNode) lastSeen() time.Time {
	if b := k.tracker.Boot(); len(b.Events) > 0 {
		return b.Last()
	}
	return k.mount.Since
}

// diagnosis judges the last boot. Where no event is left of it, the mount says
// that it came up.
func (k *knownNode) diagnosis(now time.Time) boot.Diagnosis {
	d := boot.Diagnose(k.tracker.Boot(), now)
	if d.State == boot.StateUnseen && !k.mount.Since.IsZero() {
		return boot.Diagnosis{State: boot.StateUp, Stage: boot.Mounted}
	}
	return d
}

// nodeKey tells nodes of several clusters apart.
type nodeKey struct{ cluster, node string }

// known is every node of a store.
type known struct {
	nodes map[nodeKey]*knownNode
	// strangers are cards of no node that asked, by MAC.
	strangers map[string]*boot.Tracker
}

// knowNodes reads what a store knows. Only clusters with one of these names
// are read, or all if there is none.
func knowNodes(ctx context.Context, s *store.Store, only ...string) (*known, error) {
	k := &known{nodes: map[nodeKey]*knownNode{}, strangers: map[string]*boot.Tracker{}}
	err := errors.Join(k.readPins(ctx, s, only), k.readMounts(ctx, s), k.readEvents(s))
	if err != nil {
		return nil, err
	}
	if len(only) > 0 {
		maps.DeleteFunc(k.nodes, func(key nodeKey, n *knownNode) bool {
			return !slices.Contains(only, key.cluster) && !slices.Contains(only, n.pinned)
		})
	}
	return k, nil
}

func (k *known) at(cluster, node string) *knownNode {
	key := nodeKey{cluster, node}
	if k.nodes[key] == nil {
		k.nodes[key] = &knownNode{cluster: cluster, node: imagefmt.Node{Name: node}}
	}
	return k.nodes[key]
}

func (k *known) readPins(ctx context.Context, s *store.Store, only []string) error {
	names, err := s.Clusters()
	if err != nil {
		return err
	}
	// Of two names for one cluster the last that is read counts: one that was asked for.
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(slices.Index(only, a), slices.Index(only, b))
	})
	for _, name := range names {
		pins, err := s.Pins(name)
		if err == nil {
			err = k.readCluster(ctx, s, name, pins)
		}
		if err != nil && (len(only) == 0 || slices.Contains(only, name)) {
			return fmt.Errorf("reading the cluster %q: %w", name, err)
		}
	}
	return nil
}

// readCluster gives each node of the head its identity and its pin.
func (k *known) readCluster(ctx context.Context, s *store.Store, name string, pins store.Pins) error {
	head, err := manifestsOf(ctx, s, pins.Head)
	if err != nil {
		return err
	}
	images := map[digest.Digest]map[string]store.NodeManifest{pins.Head: head}
	for _, node := range slices.Sorted(maps.Keys(head)) {
		_, config, err := s.ManifestConfig(ctx, head[node].Descriptor)
		if err != nil {
			return err
		}
		cluster, identity, err := imagefmt.Parse(config.Config.Labels)
		if err != nil {
			return err
		}
		at := k.at(cluster.Name, node)
		at.pinned, at.node, at.image = name, identity, pins.Of(node)
		if images[at.image] == nil {
			if images[at.image], err = manifestsOf(ctx, s, at.image); err != nil {
				return err
			}
		}
		at.manifest = images[at.image][node].Descriptor.Digest
	}
	return nil
}

func manifestsOf(ctx context.Context, s *store.Store, image digest.Digest) (map[string]store.NodeManifest, error) {
	d, err := s.Images().Describe(ctx, image)
	if err != nil {
		return nil, err
	}
	nodes, err := s.Nodes(ctx, d)
	byName := map[string]store.NodeManifest{}
	for _, n := range nodes {
		byName[n.Node] = n
	}
	return byName, err
}

// readMounts adds what runs. A node that no pin names is known by its image.
func (k *known) readMounts(ctx context.Context, s *store.Store) error {
	mounts, err := s.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		at := k.at(m.Cluster, m.Node)
		at.mount = m
		if at.node.Address.IsValid() {
			continue
		}
		if d, err := s.Images().Describe(ctx, m.Manifest); err == nil {
			if _, config, err := s.ManifestConfig(ctx, d); err == nil {
				if _, identity, err := imagefmt.Parse(config.Config.Labels); err == nil {
					at.node = identity
				}
			}
		}
	}
	return nil
}

func (k *known) readEvents(s *store.Store) error {
	clusters, err := eventClusters(s)
	if err != nil {
		return err
	}
	for _, cluster := range clusters {
		if err := readEvents(s, cluster, func(e boot.Event) { k.take(cluster, e) }); err != nil {
			return err
		}
	}
	return nil
}

func (k *known) take(cluster string, e boot.Event) {
	switch {
	case e.Node != "":
		k.at(cluster, e.Node).tracker.Add(e)
	case e.MAC != "":
		if k.strangers[e.MAC] == nil {
			k.strangers[e.MAC] = &boot.Tracker{}
		}
		k.strangers[e.MAC].Add(e)
	}
}

// sorted lists the nodes by cluster and by name, as people count.
func (k *known) sorted() []*knownNode {
	return slices.SortedFunc(maps.Values(k.nodes), func(a, b *knownNode) int {
		return cmp.Or(cmp.Compare(a.cluster, b.cluster), cmp.Compare(len(a.node.Name), len(b.node.Name)), cmp.Compare(a.node.Name, b.node.Name))
	})
}

// find looks a node up by NODE, CLUSTER/NODE, card or address.
func (k *known) find(cluster, name string) []*knownNode {
	addr, _ := netip.ParseAddr(name)
	var found []*knownNode
	for _, n := range k.sorted() {
		if cluster != "" && cluster != n.cluster && cluster != n.pinned {
			continue
		}
		if n.is(name, addr) {
			found = append(found, n)
		}
	}
	return found
}

// is says whether a name, card or address is the node's: as its image has them,
// or as they were seen.
func (k *knownNode) is(name string, addr netip.Addr) bool {
	last := k.tracker.Boot()
	return k.node.Name == name || slices.Contains(k.node.MACs, name) || last.MAC == name && name != "" ||
		addr.IsValid() && (k.node.Address == addr || last.Addr == addr)
}

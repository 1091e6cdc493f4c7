package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/volume"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// volumes are the writable exports of a running serve.
func (h *host) volumes(events boot.Sink) *volume.Volumes {
	return volume.New(volume.Config{
		Nodes:   serve.VolumeNodes(h.fleet),
		Persist: h.store.PersistDir,
		State:   func(cluster, node string) (string, error) { return volumeState(h.store, cluster, node) },
		Events:  events,
	})
}

// cowDir is the store's folder of what nodes wrote over their images.
const cowDir = "cow"

// volumeState makes the folder of what is kept beside a node's writable
// exports: lock, key of handles, changes to its image.
func volumeState(s *store.Store, cluster, node string) (string, error) {
	// The store checks the names where it makes the other folder of the node.
	if _, err := s.PersistDir(cluster, node); err != nil {
		return "", err
	}
	dir := filepath.Join(s.Dir(), cowDir, cluster, node)
	return dir, os.MkdirAll(dir, 0o700)
}

func (a *app) changesCommand() *cobra.Command {
	var drop bool
	var layer string
	cmd := &cobra.Command{
		Use:   "changes NODE|CLUSTER/NODE",
		Short: "List what a node wrote over its image in copy-on-write exports",
		Long: `List what a node wrote over its image in copy-on-write exports (etc:
persistent): what it added, changed, moved or removed, and where a later image
changed the same. The node's own is kept then, until it is dropped.

With --drop, forget all of it: the node has the image's files again when it
boots next. Stop the server first, which has them open. With --layer, write
them as a tar that is a layer over the image, to build with or to look into.

The image that the changes lie over stays in the store until they are dropped,
whatever becomes of its names and pins.`,
		Args: exact(1, "one node"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.changes(cmd.Context(), args[0], layer, drop) },
	}
	cmd.Flags().StringVar(&layer, "layer", "", "write the changes to this file, as a layer (tar)")
	cmd.Flags().BoolVar(&drop, "drop", false, "forget the changes")
	takesFile(cmd, "layer")
	return a.places(a.jsonFlag(cmd), offerChanged)
}

func (a *app) changes(ctx context.Context, name, layer string, drop bool) error {
	if name == "" || strings.Count(name, "/") > 1 || strings.Contains(name, "..") {
		return usagef("%q is no node: write NODE or CLUSTER/NODE", name)
	}
	open := a.openStore
	if drop {
		open = a.openToChange
	}
	s, err := open()
	if err != nil {
		return err
	}
	dir, err := findChanges(s, name)
	if err != nil {
		return err
	}
	trees, err := volume.Trees(dir)
	if err != nil {
		return err
	}
	if layer != "" {
		if err := writeChanges(ctx, s, layer, trees); err != nil {
			return err
		}
	}
	if drop {
		if err := volume.Drop(dir); err != nil {
			return err
		}
	}
	return a.printChanges(trees)
}

// writeChanges writes a node's changes as a layer, over the image they were
// laid over last.
func writeChanges(ctx context.Context, s *store.Store, file string, trees []volume.Tree) error {
	if len(trees) != 1 {
		return usagef("--layer writes one copy-on-write export; this node has %d", len(trees))
	}
	d, err := s.Images().Describe(ctx, digest.Digest(trees[0].Image))
	if err != nil {
		return fmt.Errorf("finding the image under the changes: %w", err)
	}
	loader := &serve.Loader{Source: storeSource{s}, Cache: rootfs.NewCache(64 << 20)}
	defer loader.Close()
	m, err := loader.Machine(ctx, d)
	if err != nil {
		return fmt.Errorf("opening the image under the changes: %w", err)
	}
	if err := volume.LayerFile(file, trees[0], m.View); err != nil {
		return fmt.Errorf("writing %q: %w", file, err)
	}
	return nil
}

// changedImages are the images that nodes' changes lie over. They stay until the
// changes are dropped: without the image, a change is half a file.
func changedImages(s *store.Store) ([]store.Need, error) {
	nodes, err := changedNodes(s)
	if err != nil {
		return nil, err
	}
	var needs []store.Need
	for _, node := range nodes {
		trees, err := volume.Trees(filepath.Join(s.Dir(), cowDir, node))
		if err != nil {
			return nil, err
		}
		for _, t := range trees {
			if len(t.Changes) > 0 && t.Image != "" {
				needs = append(needs, store.Need{Digest: digest.Digest(t.Image), Why: fmt.Sprintf("the changes of the node %q in %q", node, t.Path)})
			}
		}
	}
	return needs, nil
}

// changedNodes lists the nodes that ever had a writable export, as CLUSTER/NODE.
func changedNodes(s *store.Store) ([]string, error) {
	clusters, err := s.Names(cowDir, "")
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, c := range clusters {
		names, err := s.Names(filepath.Join(cowDir, c), "")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			nodes = append(nodes, c+"/"+n)
		}
	}
	return nodes, nil
}

// findChanges finds a node's folder by its name, alone or behind its cluster's.
func findChanges(s *store.Store, name string) (string, error) {
	found, err := changedNodes(s)
	if err != nil {
		return "", err
	}
	found = slices.DeleteFunc(found, func(have string) bool { return have != name && path.Base(have) != name })
	switch len(found) {
	case 0:
		return "", &codeError{fmt.Errorf("no node %q has ever mounted a writable export from this store", name), exitNotFound}
	case 1:
		return filepath.Join(s.Dir(), cowDir, found[0]), nil
	}
	return "", usagef("several clusters have a node %q: write one of %s", name, strings.Join(found, ", "))
}

func (a *app) printChanges(trees []volume.Tree) error {
	if a.json {
		if trees == nil {
			trees = []volume.Tree{}
		}
		return encodeJSON(a.out, trees)
	}
	return table(a.out, "PATH\tWHAT\tSIZE\tNOTE", func(w io.Writer) {
		for _, t := range trees {
			for _, c := range t.Changes {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", quoted(c.Path), c.What, c.Size, dash(c.Clash))
			}
		}
	})
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// isBusy: another process has a node's writable exports.
func isBusy(err error) bool {
	var busy *volume.BusyError
	return errors.As(err, &busy)
}

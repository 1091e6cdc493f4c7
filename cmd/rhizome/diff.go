package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"rhizome/recipes"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/imagediff"
	"rhizome/serve/rootfs"

	"github.com/spf13/cobra"
)

func (a *app) diffCommand() *cobra.Command {
	var node string
	var exitCode bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Show what differs between two images: files, kernels, packages, node data",
		Long: `Show what differs between two images of the store, node by node: files added,
removed and changed, kernels, packages (of Debian's dpkg), and what nodes are
told. It reads the layers' indexes and not the files; times do not count.`,
		Args: withImages(exact(2, "two images"), 0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.diff(cmd.Context(), args[0], args[1], node)
			if err != nil {
				return err
			}
			if err := a.printDiff(r); err != nil {
				return err
			}
			if exitCode && !r.Empty() {
				return reported(exitFound)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&node, "node", "*", "compare these nodes alone, as in n[1-10]")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "end with exit code 6 where they differ")
	a.flagOffers(cmd, "node", offerNodes)
	return a.places(a.jsonFlag(cmd), offerImages, offerImages)
}

func (a *app) diff(ctx context.Context, older, newer, glob string) (*imagediff.Report, error) {
	set, err := recipes.ParseNodeSet(glob)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--node: %w", err)}
	}
	s, err := a.openStore()
	if err != nil {
		return nil, err
	}
	loader := &serve.Loader{Source: storeSource{s}, Cache: rootfs.NewCache(readCache)}
	defer loader.Close()
	old, err := diffNodes(ctx, s, loader, older, set)
	if err != nil {
		return nil, err
	}
	new, err := diffNodes(ctx, s, loader, newer, set)
	if err != nil {
		return nil, err
	}
	if len(old)+len(new) == 0 {
		return nil, &codeError{fmt.Errorf("neither %q nor %q has a node that matches %q", older, newer, glob), exitNotFound}
	}
	return imagediff.Compare(old, new)
}

// diffNodes opens the nodes of an image that are in a set.
func diffNodes(ctx context.Context, s *store.Store, loader *serve.Loader, image string, set recipes.NodeSet) ([]imagediff.Node, error) {
	index, err := resolve(ctx, s, image)
	if err != nil {
		return nil, err
	}
	nodes, err := s.Nodes(ctx, index)
	if err != nil {
		return nil, err
	}
	var out []imagediff.Node
	for _, n := range nodes {
		if !set.Match(n.Node) {
			continue
		}
		m, err := loader.Machine(ctx, n.Descriptor)
		if err != nil {
			return nil, fmt.Errorf("opening the root of node %q of %q: %w", n.Node, image, err)
		}
		out = append(out, imagediff.Node{Cluster: m.Cluster, Node: m.Node, View: m.View})
	}
	return out, nil
}

func (a *app) printDiff(r *imagediff.Report) error {
	if a.json {
		return encodeJSON(a.out, r)
	}
	if r.Empty() {
		a.term.note("nothing differs")
		return nil
	}
	return table(a.out, "WHAT\tCHANGE\tNAME\tNODES", func(w io.Writer) {
		for _, n := range r.NodesAdded {
			fmt.Fprintf(w, "node\tadded\t%s\t-\n", n)
		}
		for _, n := range r.NodesRemoved {
			fmt.Fprintf(w, "node\tremoved\t%s\t-\n", n)
		}
		printFields(w, "cluster", r.Cluster)
		printFields(w, "data", r.Data)
		printFields(w, "kernel", r.Kernels)
		printFields(w, "package", r.Packages)
		for _, f := range r.Files {
			fmt.Fprintf(w, "file\t%s\t%s\t%s\n", fileChange(f), quoted(f.Path), joined(f.Nodes))
		}
	})
}

func printFields(w io.Writer, what string, fields []imagediff.Field) {
	for _, f := range fields {
		name, change := f.Name+": "+f.Old+" -> "+f.New, "changed"
		switch {
		case f.Old == "":
			name, change = f.Name+": "+f.New, "added"
		case f.New == "":
			name, change = f.Name+": "+f.Old, "removed"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", what, change, oneLine(name), joined(f.Nodes))
	}
}

// oneLine keeps what a recipe put into a value in its cell.
func oneLine(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`, "\v", `\v`, "\f", `\f`, "\r", `\r`, "\x1b", `\e`).Replace(s)
}

// fileChange is "added", "removed", or what changed.
func fileChange(f imagediff.File) string {
	if len(f.What) == 0 {
		return f.Change
	}
	return strings.Join(f.What, ",")
}

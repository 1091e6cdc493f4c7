package main

import (
	"context"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/recipes"
	"rhizome/registry/store"
	"rhizome/serve/rootfs"

	"github.com/spf13/cobra"
)

// What shells offer while somebody types. It comes out of the store as it is: it
// makes none, says nothing of what is wrong, and opens no more than lists.

// offer is what may stand in one place, given the arguments before it.
type offer func(a *app, args []string) []string

// places completes a verb's arguments, one offer for each place.
func (a *app) places(cmd *cobra.Command, offers ...offer) *cobra.Command {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(offers) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return beginning(typed, offers[len(args)](a, args)), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// flagOffers completes a flag by an offer, which is given the verb's arguments.
func (a *app) flagOffers(cmd *cobra.Command, name string, o offer) {
	_ = cmd.RegisterFlagCompletionFunc(name, func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return beginning(typed, o(a, args)), cobra.ShellCompDirectiveNoFileComp
	})
}

// takesFile completes flags by the shell's own list of files.
func takesFile(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		})
	}
}

func beginning(typed string, all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, typed) })
}

// either offers what several offer.
func either(offers ...offer) offer {
	return func(a *app, args []string) (all []string) {
		for _, o := range offers {
			all = append(all, o(a, args)...)
		}
		return all
	}
}

// inStore offers what a list finds in the store; nothing where there is none, or
// none that this user may read.
func (a *app) inStore(args []string, list func(ctx context.Context, s *store.Store, args []string) []string) []string {
	dir, err := a.storeFolder()
	if err != nil {
		return nil
	}
	s, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		return nil
	}
	return list(context.Background(), s, args)
}

func offerImages(a *app, args []string) []string   { return a.inStore(args, imageNames) }
func offerClusters(a *app, args []string) []string { return a.inStore(args, clusterNames) }
func offerNodes(a *app, args []string) []string    { return a.inStore(args, nodesOfImage) }
func offerKnown(a *app, args []string) []string    { return a.inStore(args, knownNames) }
func offerChanged(a *app, args []string) []string  { return a.inStore(args, changedNames) }

func imageNames(ctx context.Context, s *store.Store, _ []string) (names []string) {
	tags, _ := s.Images().Tags(ctx) // what cannot be read is not offered
	for _, t := range tags {
		names = append(names, t.Name)
	}
	return names
}

func clusterNames(_ context.Context, s *store.Store, _ []string) []string {
	names, _ := s.Clusters() // what cannot be read is not offered
	return names
}

// nodesOfImage are the nodes of the image or cluster that the arguments name:
// the last that is one, so that it serves "pin CLUSTER REF --node" too.
func nodesOfImage(ctx context.Context, s *store.Store, args []string) []string {
	for _, name := range slices.Backward(args) {
		if pins, err := s.Pins(name); err == nil {
			name = pins.Head.String()
		}
		if d, err := s.Resolve(ctx, name); err == nil {
			nodes, _ := s.Nodes(ctx, d) // what cannot be read is not offered
			var names []string
			for _, n := range nodes {
				names = append(names, n.Node)
			}
			return names
		}
	}
	return nil
}

// knownNames are the nodes of all clusters, and those that have mounted a root.
func knownNames(ctx context.Context, s *store.Store, _ []string) []string {
	found := map[string][]string{}
	for _, cluster := range clusterNames(ctx, s, nil) {
		for _, n := range nodesOfImage(ctx, s, []string{cluster}) {
			found[n] = append(found[n], cluster)
		}
	}
	for _, cluster := range filesIn(s.Dir(), "mounts") {
		for _, n := range filesIn(s.Dir(), "mounts", cluster) {
			if n = strings.TrimSuffix(n, ".json"); len(found[n]) == 0 {
				found[n] = []string{cluster}
			}
		}
	}
	return unambiguous(found)
}

// changedNames are the nodes that keep something beside their writable exports.
func changedNames(_ context.Context, s *store.Store, _ []string) []string {
	found := map[string][]string{}
	for _, cluster := range filesIn(s.Dir(), cowDir) {
		for _, n := range filesIn(s.Dir(), cowDir, cluster) {
			found[n] = append(found[n], cluster)
		}
	}
	return unambiguous(found)
}

func filesIn(dir ...string) (names []string) {
	entries, _ := os.ReadDir(filepath.Join(dir...)) // what cannot be read is not offered
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// unambiguous writes nodes of several clusters as CLUSTER/NODE.
func unambiguous(found map[string][]string) (names []string) {
	for node, clusters := range found {
		if len(clusters) == 1 {
			names = append(names, node)
			continue
		}
		for _, c := range clusters {
			names = append(names, c+"/"+node)
		}
	}
	slices.Sort(names)
	return names
}

// offerRecipeNodes are the nodes of the recipe that is the first argument.
func offerRecipeNodes(_ *app, args []string) (names []string) {
	if len(args) == 0 {
		return nil
	}
	r, _, err := recipes.Load(args[0])
	if err != nil || r == nil {
		return nil
	}
	for _, n := range r.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// offerInterfaces are this host's network interfaces.
func offerInterfaces(*app, []string) (names []string) {
	list, _ := net.Interfaces() // none is nothing to offer
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// recipeArgs completes recipes: files of YAML, and the shipped ones once a name is
// begun. others are offered beside them, as where a cluster may stand too.
func (a *app) recipeArgs(cmd *cobra.Command, most int, others ...offer) *cobra.Command {
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		named := either(others...)(a, args)
		if typed != "" {
			named = append(named, recipes.Shipped()...)
		}
		if named = beginning(typed, named); len(named) == 0 {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		}
		files, _ := filepath.Glob(typed + "*.y*ml") // a pattern in the name matches nothing
		return append(named, files...), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// fileArgs completes REF NODE PATH, the path out of the node's merged root.
func (a *app) fileArgs(cmd *cobra.Command) *cobra.Command {
	a.places(cmd, offerImages, offerNodes)
	names := cmd.ValidArgsFunction
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) != 2 {
			return names(cmd, args, typed)
		}
		paths := a.inStore(args, func(ctx context.Context, s *store.Store, args []string) []string { return pathsIn(ctx, s, args, typed) })
		return beginning(typed, paths), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return cmd
}

// pathsIn lists the folder in which a path that is being typed ends.
func pathsIn(ctx context.Context, s *store.Store, args []string, typed string) (all []string) {
	dir, _ := path.Split(typed)
	if dir == "" {
		dir = "/"
	}
	_ = useNode(ctx, s, args[0], args[1], func(e exported) error {
		v := e.machine.View
		f, err := v.Resolve(dir)
		if err != nil {
			return err
		}
		return v.ReadDir(f, 0, func(d rootfs.Dirent) bool {
			name := dir + d.Name
			if d.Kind == rootfs.Dir {
				name += "/"
			}
			all = append(all, name)
			return true
		})
	})
	return all
}

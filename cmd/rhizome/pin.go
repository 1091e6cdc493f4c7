package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"rhizome/recipes"
	"rhizome/registry"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func (a *app) pinCommand() *cobra.Command {
	var nodes string
	cmd := &cobra.Command{
		Use:   "pin CLUSTER REF",
		Short: "Say which image a cluster's nodes boot next",
		Long: `Say which image a cluster's nodes boot next, in one atomic switch. The first
pin makes the cluster. Without --node the whole cluster moves, with its
identities and network; with --node only the roots of those nodes.`,
		Args: withImages(exact(2, "a cluster and an image"), 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pin(cmd.Context(), args[0], args[1], nodes)
		},
	}
	cmd.Flags().StringVar(&nodes, "node", "", "move these nodes alone, as in n[1-10]")
	a.flagOffers(cmd, "node", offerNodes)
	return a.places(a.jsonFlag(cmd), offerClusters, offerImages)
}

func (a *app) pin(ctx context.Context, cluster, image, nodes string) error {
	s, err := a.openToChange()
	if err != nil {
		return err
	}
	d, err := resolve(ctx, s, image)
	if err != nil {
		return err
	}
	names, err := selectNodes(ctx, s, d, nodes)
	if err != nil {
		return err
	}
	before, after, err := s.Pin(ctx, store.PinRequest{Cluster: cluster, Image: d, Nodes: names})
	if err != nil {
		return err
	}
	return a.printSwitch(before, after, names)
}

// selectNodes expands a node set against an image; an empty set is nil. All that it
// names must be there: half of what was asked for would go unnoticed.
func selectNodes(ctx context.Context, s *store.Store, image ocispec.Descriptor, set string) ([]string, error) {
	if set == "" {
		return nil, nil
	}
	want, err := recipes.ParseNodeSet(set)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--node: %w", err)}
	}
	all, err := s.Nodes(ctx, image)
	if err != nil {
		return nil, err
	}
	var names, have []string
	for _, n := range all {
		have = append(have, n.Node)
		if want.Match(n.Node) {
			names = append(names, n.Node)
		}
	}
	if lacks := want.Lacks(have); len(lacks) > 0 {
		return nil, &codeError{fmt.Errorf("--node %s: the image %s has no node %s; it has %s", set, image.Digest, some(lacks), some(have)), exitNotFound}
	}
	return names, nil
}

// switched is what pin and rollback print: old and new digest.
type switched struct {
	Cluster string        `json:"cluster"`
	Nodes   []string      `json:"nodes,omitempty"`
	From    digest.Digest `json:"from,omitempty"`
	To      digest.Digest `json:"to"`
}

func (a *app) printSwitch(before, after store.Pins, nodes []string) error {
	out := switched{Cluster: after.Cluster, Nodes: nodes, From: before.Boot, To: after.Boot}
	if len(nodes) > 0 {
		out.From, out.To = before.Of(nodes[0]), after.Of(nodes[0])
	}
	if a.json {
		return encodeJSON(a.out, out)
	}
	from := out.From.String()
	if from == "" {
		from = "-"
	}
	_, err := fmt.Fprintf(a.out, "%s %s\n", from, out.To)
	return err
}

func (a *app) rollbackCommand() *cobra.Command {
	var nodes, to string
	cmd := &cobra.Command{
		Use:   "rollback CLUSTER",
		Short: "Make a cluster's nodes boot the former image again",
		Long: `Take the last switch of a cluster back, in one atomic switch; a second
rollback undoes the first. With --to, go to that image. Cards and addresses
stay those of the cluster's head.`,
		Args: exact(1, "one cluster"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rollback(cmd.Context(), args[0], nodes, to)
		},
	}
	cmd.Flags().StringVar(&nodes, "node", "", "roll back these nodes alone, as in n[1-10]")
	cmd.Flags().StringVar(&to, "to", "", "the image to go back to, by digest or name")
	a.flagOffers(cmd, "node", offerNodes)
	a.flagOffers(cmd, "to", offerImages)
	return a.places(a.jsonFlag(cmd), offerClusters)
}

func (a *app) rollback(ctx context.Context, cluster, nodes, to string) error {
	s, err := a.openToChange()
	if err != nil {
		return err
	}
	pins, err := s.Pins(cluster)
	if err != nil {
		return err
	}
	head, err := s.Images().Describe(ctx, pins.Head)
	if err != nil {
		return err
	}
	req := store.RollbackRequest{Cluster: cluster}
	if req.Nodes, err = selectNodes(ctx, s, head, nodes); err != nil {
		return err
	}
	if to != "" {
		d, err := resolve(ctx, s, to)
		if err != nil {
			return err
		}
		req.To = d.Digest
	}
	before, after, err := s.Rollback(ctx, req)
	if err != nil {
		return err
	}
	return a.printSwitch(before, after, req.Nodes)
}

func (a *app) historyCommand() *cobra.Command {
	var flags registryFlags
	cmd := &cobra.Command{
		Use:   "history REF|CLUSTER",
		Short: "List what a name has meant, or a cluster booted, newest first",
		Long: `List what a name of the store has meant, or a cluster booted, newest first.
For HOST/NAME[:TAG] the history is the registry's: the dated tags that push
left there, at most the last 100.`,
		Args: exact(1, "one image name or cluster"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.history(cmd.Context(), args[0], flags)
		},
	}
	flags.add(cmd)
	return a.places(a.jsonFlag(cmd), either(offerClusters, offerImages))
}

func (a *app) history(ctx context.Context, name string, flags registryFlags) error {
	if inRegistry(name) {
		return a.farHistory(ctx, name, flags)
	}
	s, err := a.openStore()
	if err != nil {
		return err
	}
	if pins, err := s.Pins(name); err == nil {
		return a.printPinHistory(pins)
	}
	versions, err := s.History(ctx, name)
	if err != nil {
		return err
	}
	return a.printHistory(versions)
}

// farHistory prints the history that a registry keeps.
func (a *app) farHistory(ctx context.Context, name string, flags registryFlags) error {
	r, err := farRef(name)
	if err != nil {
		return err
	}
	s, err := a.openAnyStore()
	if err != nil {
		return err
	}
	link, err := a.link(flags, s)
	if err != nil {
		return err
	}
	versions, err := link.FarHistory(ctx, r)
	if err != nil {
		return err
	}
	if versions == nil {
		versions = []registry.FarVersion{}
	}
	if a.json {
		return encodeJSON(a.out, versions)
	}
	return table(a.out, "WHEN\tNAME\tDIGEST\tTAG", func(w io.Writer) {
		for _, v := range versions {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", v.Time.Local().Format(time.DateTime), v.Ref, v.To, v.Dated)
		}
	})
}

func (a *app) printHistory(versions []store.Version) error {
	if a.json {
		return encodeJSON(a.out, versions)
	}
	return table(a.out, "WHEN\tNAME\tDIGEST\tWHO\tHERE", func(w io.Writer) {
		for _, v := range versions {
			to, here := v.To.String(), "yes"
			if v.To == "" {
				to = "(dropped)"
			}
			if !v.Present {
				here = "no"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", v.Time.Local().Format(time.DateTime), v.Ref, to, v.Who, here)
		}
	})
}

func (a *app) printPinHistory(p store.Pins) error {
	if a.json {
		return encodeJSON(a.out, p)
	}
	return table(a.out, "WHEN\tWHAT\tNODES\tFROM\tTO\tWHO", func(w io.Writer) {
		for i := len(p.History) - 1; i >= 0; i-- {
			c := p.History[i]
			for _, m := range c.Moves {
				nodes := "all"
				if len(m.Nodes) > 0 {
					nodes = joined(m.Nodes)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Time.Local().Format(time.DateTime), c.Why, nodes, short(m.From), short(m.To), c.Who)
			}
		}
	})
}

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"rhizome/serve/boot"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// nodeRow is a node as nodes shows it.
type nodeRow struct {
	Cluster string     `json:"cluster"`
	Node    string     `json:"node"`
	State   boot.State `json:"state"`
	// Stage is how far its last boot has come.
	Stage boot.Stage `json:"stage"`
	// Missing is the first thing that did not happen.
	Missing string `json:"missing,omitempty"`
	// Running is the manifest that it runs; Pinned the image that it boots next,
	// and Next its manifest in that.
	Running  digest.Digest `json:"running,omitempty"`
	Pinned   digest.Digest `json:"pinned,omitempty"`
	Next     digest.Digest `json:"next,omitempty"`
	LastSeen time.Time     `json:"lastSeen,omitzero"`
	Root     string        `json:"root,omitempty"`
}

func (a *app) nodesCommand() *cobra.Command {
	cmd := a.jsonFlag(&cobra.Command{
		Use:   "nodes [CLUSTER...]",
		Short: "Where each node is, what it runs, and what it is pinned to",
		Long: `Where each node is, what it runs, and what it is pinned to, from the pins and
from what serve has seen of the last month's boots.

STATE is unseen, booting, stuck, up or silent; "rhizome explain NODE" says why.
RUNNING and NEXT are the node's manifests: a node of which they differ boots
another root next.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.nodes(cmd.Context(), args) },
	})
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		more := slices.DeleteFunc(offerClusters(a, nil), func(c string) bool { return slices.Contains(args, c) })
		return beginning(typed, more), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

func (a *app) nodes(ctx context.Context, clusters []string) error {
	open := a.openListed
	if len(clusters) > 0 {
		open = a.openStore
	}
	s, err := open()
	if err != nil {
		return err
	}
	k, err := knowNodes(ctx, s, clusters...)
	if err != nil {
		return err
	}
	if len(k.nodes) == 0 && len(clusters) > 0 {
		return &codeError{fmt.Errorf("no node of a cluster %q is known: nobody has pinned or served it", joined(clusters)), exitNotFound}
	}
	rows := []nodeRow{}
	for _, n := range k.sorted() {
		rows = append(rows, rowOf(n, time.Now()))
	}
	if a.json {
		return encodeJSON(a.out, rows)
	}
	return table(a.out, "CLUSTER\tNODE\tSTATE\tRUNNING\tNEXT\tPINNED\tLAST SEEN\tROOT", func(w io.Writer) {
		for _, r := range rows {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Cluster, r.Node, r.State, short(r.Running), short(r.Next), short(r.Pinned), when(r.LastSeen), dash(r.Root))
		}
	})
}

func rowOf(n *knownNode, now time.Time) nodeRow {
	d := n.diagnosis(now)
	cluster := n.pinned
	if cluster == "" {
		cluster = n.cluster
	}
	return nodeRow{
		Cluster: cluster, Node: n.node.Name, State: d.State, Stage: d.Stage, Missing: d.Missing,
		Running: n.mount.Manifest, Pinned: n.image, Next: n.manifest, LastSeen: n.lastSeen(), Root: n.node.Root,
	}
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"rhizome/registry/store"
	"rhizome/serve/boot"

	"github.com/spf13/cobra"
)

// explanation is one boot, told.
type explanation struct {
	Cluster   string         `json:"cluster,omitempty"`
	Node      string         `json:"node,omitempty"`
	Boot      boot.Boot      `json:"boot"`
	Began     time.Time      `json:"began,omitzero"`
	Timeline  []boot.Line    `json:"timeline"`
	Diagnosis boot.Diagnosis `json:"diagnosis"`
}

func (a *app) explainCommand() *cobra.Command {
	back := 0
	cmd := &cobra.Command{
		Use:   "explain NODE|CLUSTER/NODE|MAC|ADDRESS",
		Short: "Tell one boot in order, and name the first thing that did not happen",
		Long: `Tell a node's last boot in order, as serve saw it, and name the first thing
that did not happen, why, and what to do. A card that belongs to no node can be
named by its MAC.`,
		Args: exact(1, "one node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if back < 0 {
				return usagef("--back is 0 for the last boot, 1 for the one before, and so on")
			}
			return a.explain(cmd.Context(), args[0], back)
		},
	}
	cmd.Flags().IntVar(&back, "back", 0, "how many boots to go back")
	return a.places(a.jsonFlag(cmd), offerKnown)
}

func (a *app) explain(ctx context.Context, name string, back int) error {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	x, err := explainNode(ctx, s, name, back)
	if err != nil {
		return err
	}
	if a.json {
		return encodeJSON(a.out, x)
	}
	return x.write(a.out)
}

func explainNode(ctx context.Context, s *store.Store, name string, back int) (*explanation, error) {
	if mac, err := net.ParseMAC(name); err == nil {
		name = mac.String()
	}
	cluster, node := "", name
	if before, after, ok := strings.Cut(name, "/"); ok {
		cluster, node = before, after
	}
	k, err := knowNodes(ctx, s, nonempty(cluster)...)
	if err != nil {
		return nil, err
	}
	found := k.find(cluster, node)
	switch {
	case len(found) > 1:
		return nil, usagef("several clusters have a node %q: write one of %s", name, joined(qualified(found)))
	case len(found) == 1:
		return explainKnown(s, found[0], back)
	case k.strangers[name] != nil:
		return explanationOf(k.strangers[name].Boot(), time.Now()), nil
	}
	return nil, &codeError{fmt.Errorf("no node %q is known: no cluster has it, and serve has seen nothing of it; `rhizome nodes` lists the nodes", name), exitNotFound}
}

func nonempty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func qualified(found []*knownNode) (names []string) {
	for _, n := range found {
		names = append(names, n.cluster+"/"+n.node.Name)
	}
	return names
}

// explainKnown judges a boot of a node. One before the last is judged as it
// stood when the next began.
func explainKnown(s *store.Store, n *knownNode, back int) (*explanation, error) {
	var events []boot.Event
	err := readEvents(s, n.cluster, func(e boot.Event) {
		// Another DHCP server may be seen without a word of the node that it keeps.
		if e.Node == n.node.Name || e.Node == "" && e.Kind == boot.DHCPForeign && len(events) > 0 {
			events = append(events, e)
		}
	})
	if err != nil {
		return nil, err
	}
	boots := boot.Boots(events)
	var b boot.Boot
	now := time.Now()
	switch at := len(boots) - 1 - back; {
	case at >= 0:
		b = boots[at]
		if back > 0 {
			now = boots[at+1].Began()
		}
	case back > 0:
		return nil, &codeError{fmt.Errorf("%d boot(s) of node %q are known; there is none %d back", len(boots), n.node.Name, back), exitNotFound}
	}
	x := explanationOf(b, now)
	if len(b.Events) == 0 {
		x.Diagnosis = n.diagnosis(now)
	}
	x.Cluster, x.Node = n.cluster, n.node.Name
	return x, nil
}

func explanationOf(b boot.Boot, now time.Time) *explanation {
	x := &explanation{Node: b.Node, Boot: b, Timeline: boot.Timeline(b), Diagnosis: boot.Diagnose(b, now)}
	if len(b.Events) > 0 {
		x.Began = b.Began()
	}
	if x.Timeline == nil {
		x.Timeline = []boot.Line{}
	}
	if x.Boot.Events == nil {
		x.Boot.Events = []boot.Event{}
	}
	return x
}

func (x *explanation) write(w io.Writer) error {
	who := "card " + x.Boot.MAC
	if x.Node != "" {
		who = "node " + x.Node
	}
	switch {
	case x.Began.IsZero():
		fmt.Fprintf(w, "%s: no boot was seen\n", who)
	default:
		fmt.Fprintf(w, "%s, boot of %s", who, when(x.Began))
		if x.Boot.Digest != "" {
			fmt.Fprintf(w, ", manifest %s", x.Boot.Digest)
		}
		fmt.Fprintln(w)
	}
	for _, l := range x.Timeline {
		fmt.Fprintf(w, "%+10.1f s  %s%s\n", l.After.Seconds(), l.Text, times(l.Times))
		if l.Error != "" {
			fmt.Fprintf(w, "%14s%s\n", "", l.Error)
		}
	}
	d := x.Diagnosis
	fmt.Fprintf(w, "state    %s: it %s\n", d.State, d.Stage)
	for _, f := range []struct{ name, value string }{{"missing", d.Missing}, {"why", d.Why}, {"do", d.Do}} {
		if f.value != "" {
			fmt.Fprintf(w, "%-8s %s\n", f.name, f.value)
		}
	}
	return nil
}

func times(n int) string {
	if n < 2 {
		return ""
	}
	return fmt.Sprintf(" (%d times)", n)
}

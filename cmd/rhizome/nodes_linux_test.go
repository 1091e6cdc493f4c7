package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"rhizome/registry/registrytest"
	"rhizome/registry/store"
)

// A cluster that was pinned, rolled on and booted in part: each node with what it
// runs and what it boots next.
func TestNodesShowsWhatRunsAndWhatIsPinned(t *testing.T) {
	ctx, d := context.Background(), newDesk(t)
	s, err := store.Open(d.store, store.Options{Who: "tester"})
	if err != nil {
		t.Fatal(err)
	}
	first, second := registrytest.Cluster(t, s.Images(), 1), registrytest.Cluster(t, s.Images(), 2)
	nodes, err := s.Nodes(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Pin(ctx, store.PinRequest{Cluster: "prod", Image: first}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetMounted("rack", "n1", nodes[0].Descriptor.Digest); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Pin(ctx, store.PinRequest{Cluster: "prod", Image: second, Nodes: []string{"n1"}}); err != nil {
		t.Fatal(err)
	}
	_, said := d.must("nodes", "prod", "--json")
	var rows []nodeRow
	if err := json.Unmarshal([]byte(said), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Node != "n1" || rows[1].Node != "n2" {
		t.Fatalf("%+v", rows)
	}
	n1, n2 := rows[0], rows[1]
	if n1.State != "up" || n1.Running != nodes[0].Descriptor.Digest || n1.Pinned != second.Digest || n1.Next == n1.Running || n1.Root != "nfs" || n1.LastSeen.IsZero() {
		t.Errorf("n1 runs the first image and boots the second next: %+v", n1)
	}
	if n2.State != "unseen" || n2.Running != "" || n2.Pinned != first.Digest || n2.Next != nodes[1].Descriptor.Digest {
		t.Errorf("n2 never booted: %+v", n2)
	}
	if _, said := d.must("explain", "n2"); !strings.Contains(said, "missing  a request from the machine") {
		t.Errorf("explain n2: %s", said)
	}
	_, text := d.must("nodes")
	if lines := strings.Split(strings.TrimSpace(text), "\n"); len(lines) != 3 || !slices.Contains(strings.Fields(lines[1]), "prod") {
		t.Errorf("%s", text)
	}
}

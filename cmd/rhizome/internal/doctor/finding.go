// Package doctor judges a machine, an image and a network before a node is
// switched on. Facts come in as values, findings go out: whoever gathers the
// facts opens sockets and files, nothing here does.
package doctor

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Severity says how bad a finding is.
type Severity string

// An Error keeps a node from booting or serve from starting; a Warning may.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// What a finding may be about, beside single nodes.
const (
	AboutHost    = "host"
	AboutNetwork = "network"
	AboutImage   = "image"
	AboutRecipe  = "recipe"
)

// Finding is one thing that is wrong, and what to do about it.
type Finding struct {
	Severity Severity `json:"severity"`
	// What is "host", "network", "image" or "recipe", or names the nodes.
	What string `json:"what"`
	// Nodes are those that it is about, if it is about some alone.
	Nodes   []string `json:"nodes,omitempty"`
	Message string   `json:"message"`
	Remedy  string   `json:"remedy,omitempty"`
}

// findings grows by sentences about one thing.
type findings struct {
	what, node string
	all        []Finding
}

func (f *findings) fail(remedy, format string, args ...any) { f.add(Error, remedy, format, args...) }
func (f *findings) warn(remedy, format string, args ...any) { f.add(Warning, remedy, format, args...) }

func (f *findings) add(s Severity, remedy, format string, args ...any) {
	one := Finding{Severity: s, What: f.what, Message: fmt.Sprintf(format, args...), Remedy: remedy}
	if f.node != "" {
		one.Nodes = []string{f.node}
	}
	f.all = append(f.all, one)
}

// Merge makes one finding of those that say the same of several nodes: nodes
// share their layers, and so their faults. The order is that of the first of
// each.
func Merge(all []Finding) []Finding {
	at := map[[4]string]int{}
	out := []Finding{}
	for _, f := range all {
		key := [4]string{string(f.Severity), f.What, f.Message, f.Remedy}
		i, seen := at[key]
		if !seen {
			i, at[key] = len(out), len(out)
			out = append(out, Finding{f.Severity, f.What, nil, f.Message, f.Remedy})
		}
		for _, n := range f.Nodes {
			if !slices.Contains(out[i].Nodes, n) {
				out[i].Nodes = append(out[i].Nodes, n)
			}
		}
	}
	for i := range out {
		if len(out[i].Nodes) > 0 {
			out[i].What = nodesText(out[i].Nodes)
		}
	}
	return out
}

// nodesText names up to four nodes.
func nodesText(nodes []string) string {
	const most = 4
	switch {
	case len(nodes) == 1:
		return "node " + nodes[0]
	case len(nodes) <= most:
		return "nodes " + strings.Join(nodes, ", ")
	}
	return fmt.Sprintf("nodes %s and %d more", strings.Join(nodes[:most-1], ", "), len(nodes)-most+1)
}

// Write prints findings for people, each with its remedy below it.
func Write(w io.Writer, all []Finding) error {
	for _, f := range all {
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", f.Severity, f.What, f.Message); err != nil {
			return err
		}
		if f.Remedy == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "    %s\n", f.Remedy); err != nil {
			return err
		}
	}
	return nil
}

// Count says how many there are of each severity.
func Count(all []Finding) (errors, warnings int) {
	for _, f := range all {
		if f.Severity == Error {
			errors++
		}
	}
	return errors, len(all) - errors
}

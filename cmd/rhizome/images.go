package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// imageRow is a named image as images shows it.
type imageRow struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Tagged time.Time     `json:"tagged,omitzero"`
	Nodes  []string      `json:"nodes"`
}

func (a *app) imagesCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "images",
		Short: "List what the store holds",
		Args:  exact(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openListed()
			if err != nil {
				return err
			}
			return a.images(cmd.Context(), s)
		},
	})
}

func (a *app) images(ctx context.Context, s *store.Store) error {
	all, err := s.List(ctx)
	if err != nil {
		return err
	}
	rows := []imageRow{}
	for _, i := range all {
		nodes := append([]string{}, i.Nodes...) // an image of others has none
		rows = append(rows, imageRow{Name: i.Name, Digest: i.Descriptor.Digest, Tagged: i.Tagged, Nodes: nodes})
	}
	if a.json {
		return json.NewEncoder(a.out).Encode(rows)
	}
	return table(a.out, "NAME\tDIGEST\tNODES\tTAGGED", func(w io.Writer) {
		for _, r := range rows {
			when := "-"
			if !r.Tagged.IsZero() {
				when = r.Tagged.Local().Format(time.DateTime)
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", r.Name, r.Digest, len(r.Nodes), when)
		}
	})
}

// table writes aligned columns.
func table(out io.Writer, head string, rows func(io.Writer)) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, head)
	rows(w)
	return w.Flush()
}

// short is enough of a digest to tell it from others; "-" for none.
func short(d digest.Digest) string {
	if d == "" {
		return "-"
	}
	hex := d.Encoded()
	return d.Algorithm().String() + ":" + hex[:min(12, len(hex))]
}

// some is a list for people: its beginning, where it is long.
func some(list []string) string {
	const most = 10
	if n := len(list); n > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ","), n-most)
	}
	return joined(list)
}

func joined(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}

package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"text/tabwriter"

	"rhizome/pipeline"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// planRow is a step as plan shows it.
type planRow struct {
	Step   string        `json:"step"`
	Hit    bool          `json:"hit"`
	Why    string        `json:"why"`
	Key    digest.Digest `json:"key,omitempty"`
	Source string        `json:"source,omitempty"`
}

func (a *app) planCommand() *cobra.Command {
	flags := buildFlags{jobs: runtime.NumCPU(), looking: true}
	cmd := &cobra.Command{
		Use:   "plan RECIPE",
		Short: "Show the stages in order, each hit or miss in the cache, and why",
		Args:  exact(1, "one recipe"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.builder(cmd.Context(), args[0], flags)
			if err != nil {
				return err
			}
			if b.store.Images().Absent() {
				a.term.note("%s", noStoreYet(&store.NoStoreError{Dir: b.store.Dir()}))
			}
			p, err := b.plan(cmd.Context())
			if err != nil {
				return err
			}
			return a.printPlan(p)
		},
	}
	flags.addFrom(cmd)
	flags.add(cmd)
	cmd.Flags().StringVar(&flags.nodes, "node", "", "plan for these nodes alone, as in n[1-4]")
	a.flagOffers(cmd, "node", offerRecipeNodes)
	return a.recipeArgs(a.jsonFlag(cmd), 1)
}

func (a *app) printPlan(p *pipeline.Plan) error {
	rows := []planRow{}
	for _, s := range p.Steps {
		row := planRow{Step: s.Info.Name, Hit: s.Hit, Why: s.Why, Key: s.Key}
		if s.Info.Pos.Line > 0 {
			row.Source = s.Info.Pos.String()
		}
		rows = append(rows, row)
	}
	if a.json {
		return json.NewEncoder(a.out).Encode(rows)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "STEP\tCACHE\tWHY\tRECIPE")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Step, map[bool]string{true: "hit", false: "miss"}[r.Hit], r.Why, r.Source)
	}
	return w.Flush()
}

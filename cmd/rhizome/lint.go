package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"

	"rhizome/recipes"

	"github.com/spf13/cobra"
)

func (a *app) lintCommand() *cobra.Command {
	return a.recipeArgs(a.jsonFlag(&cobra.Command{
		Use:   "lint RECIPE...",
		Short: "Check recipes strictly; nothing is changed",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("lint takes at least one recipe; see rhizome lint --help")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			all := recipes.Findings{}
			var unread error
			for _, name := range args {
				_, findings, err := recipes.Load(name)
				all, unread = append(all, findings...), cmp.Or(unread, err)
			}
			if err := a.printFindings(all); unread == nil {
				return err
			}
			return unread
		},
	}), math.MaxInt)
}

// jsonFinding is a finding as --json prints it.
type jsonFinding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Remedy   string `json:"remedy,omitempty"`
}

func (a *app) printFindings(all recipes.Findings) error {
	rows := []jsonFinding{}
	for _, f := range all {
		row := jsonFinding{File: f.Pos.File, Line: f.Pos.Line, Column: f.Pos.Column, Severity: "error", Message: f.Message, Remedy: f.Remedy}
		if f.Severity == recipes.Warning {
			row.Severity = "warning"
		}
		rows = append(rows, row)
		if !a.json {
			fmt.Fprintln(a.out, f)
		}
	}
	if a.json {
		if err := json.NewEncoder(a.out).Encode(rows); err != nil {
			return err
		}
	}
	if all.Errors() > 0 {
		return reported(exitUsage)
	}
	return nil
}

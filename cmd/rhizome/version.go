package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Set by the Makefile through the linker.
var (
	version = "unknown"
	commit  = "unknown"
)

func (a *app) versionCommand() *cobra.Command {
	return a.jsonFlag(&cobra.Command{
		Use:   "version",
		Short: "Print version, commit, Go and platform",
		Args:  exact(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			platform := runtime.GOOS + "/" + runtime.GOARCH
			if a.json {
				return json.NewEncoder(a.out).Encode(map[string]string{
					"version": version, "commit": commit, "go": runtime.Version(), "platform": platform,
				})
			}
			_, err := fmt.Fprintf(a.out, "rhizome %s\ncommit %s\n%s %s\n", version, commit, runtime.Version(), platform)
			return err
		},
	})
}

package main

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"

	"rhizome/serve/dhcp"

	"github.com/spf13/cobra"
)

// verbs lists what the program can do, in the order of --help.
func (a *app) verbs() []*cobra.Command {
	return []*cobra.Command{
		a.lintCommand(),
		a.planCommand(),
		a.lockCommand(),
		a.buildCommand(),
		a.pushCommand(),
		a.pullCommand(),
		a.imagesCommand(),
		a.inspectCommand(),
		a.lsCommand(),
		a.catCommand(),
		a.exportCommand(),
		a.diffCommand(),
		a.blameCommand(),
		a.historyCommand(),
		a.pinCommand(),
		a.rollbackCommand(),
		a.changesCommand(),
		a.verifyCommand(),
		a.untagCommand(),
		a.gcCommand(),
		a.precacheCommand(),
		a.serveCommand(),
		a.nodesCommand(),
		a.explainCommand(),
		a.doctorCommand(),
		a.simulateCommand(),
		a.simulatedNodesCommand(),
		a.versionCommand(),
		a.manCommand(),
	}
}

func encodeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func sortMachines(all []dhcp.Machine) {
	slices.SortFunc(all, func(x, y dhcp.Machine) int { return cmp.Compare(x.Node.Name, y.Node.Name) })
}

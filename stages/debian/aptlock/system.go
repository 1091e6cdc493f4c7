package aptlock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/stages/debian/tool"
)

// System is what apt on this machine is set up to do: where its lists of
// archives lie, and how it reaches them.
type System struct {
	// Lists are the files that name archives, in apt's order.
	Lists []string
	// Acquire are lines of apt.conf that say how to reach a mirror: proxies,
	// certificates, retries.
	Acquire []string
}

// ReadSystem asks apt-config for this machine's set-up. It changes nothing.
func ReadSystem(ctx context.Context) (System, error) {
	bin, err := tool.Find("apt-config", "apt")
	if err != nil {
		return System{}, err
	}
	var dump, paths strings.Builder
	for out, args := range map[*strings.Builder][]string{
		&dump:  {bin, "dump"},
		&paths: {bin, "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"},
	} {
		c := tool.Command{Doing: "reading apt's configuration", Args: args, Stdout: out}
		if err := c.Run(ctx); err != nil {
			return System{}, err
		}
	}
	lists, err := listFiles(paths.String())
	return System{Lists: lists, Acquire: acquireLines(dump.String())}, err
}

// listFiles takes apt-config's LIST='...' and PARTS='...' apart and looks for
// the files that apt itself would read.
func listFiles(shell string) ([]string, error) {
	var files []string
	for _, line := range strings.Split(shell, "\n") {
		name, value, _ := strings.Cut(line, "=")
		value = strings.Trim(value, "'")
		switch name {
		case "LIST":
			if _, err := os.Stat(value); err == nil {
				files = append(files, value)
			}
		case "PARTS":
			entries, err := os.ReadDir(value)
			if err != nil && !os.IsNotExist(err) {
				return nil, fmt.Errorf("reading apt's lists of archives: %w", err)
			}
			for _, e := range entries {
				if ext := filepath.Ext(e.Name()); ext == ".list" || ext == ".sources" {
					files = append(files, filepath.Join(value, e.Name()))
				}
			}
		}
	}
	return files, nil
}

// notAcquired are settings under "Acquire" that say what to fetch rather than
// how; ours are our own.
var notAcquired = []string{"Acquire::IndexTargets", "Acquire::Languages", "Acquire::GzipIndexes", "Acquire::CompressionTypes",
	"Acquire::ForceHash", "Acquire::AllowInsecureRepositories", "Acquire::AllowWeakRepositories",
	"Acquire::AllowDowngradeToInsecureRepositories", "Acquire::Changelogs"}

// acquireLines keeps the lines of "apt-config dump" that say how a mirror is
// reached. Hooks, pins, foreign architectures and all else stay behind, so
// that a machine's habits cannot change what a recipe resolves to.
func acquireLines(dump string) []string {
	var keep []string
	for _, line := range strings.Split(dump, "\n") {
		if !strings.HasPrefix(line, "Acquire::") {
			continue
		}
		if !slices.ContainsFunc(notAcquired, func(p string) bool { return strings.HasPrefix(line, p) }) {
			keep = append(keep, line)
		}
	}
	return keep
}

// Sources reads every list.
func (s System) Sources() ([]Source, error) {
	var all []Source
	for _, name := range s.Lists {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading apt's list of archives: %w", err)
		}
		parse := ParseList
		if filepath.Ext(name) == ".sources" {
			parse = ParseSources
		}
		found, err := parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("reading apt's list of archives %q: %w", name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

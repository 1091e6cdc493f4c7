package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"os"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/cmd/rhizome-node/internal/prefetch"
	"rhizome/serve/node/nodeapi"
)

// statusReport is what status prints with --json.
type statusReport struct {
	Server string `json:"server"`
	// Error says why the leases are not known.
	Error   string          `json:"error,omitempty"`
	Leases  []nodeapi.Lease `json:"leases"`
	Regions []held          `json:"regions"`
	// MemoryFree is in bytes.
	MemoryFree int64 `json:"memoryFree"`
}

func statusFlags(asJSON *bool) *flag.FlagSet {
	f := flag.NewFlagSet("status", flag.ContinueOnError)
	f.BoolVar(asJSON, "json", false, "print JSON")
	return f
}

func (p *program) status(ctx context.Context, args []string) error {
	asJSON := new(bool)
	f := statusFlags(asJSON)
	f.SetOutput(p.err)
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return usagef("status takes no arguments but --json")
	}
	r := statusReport{Leases: []nodeapi.Lease{}, Regions: []held{}}
	here, err := regions(p.dir)
	if err != nil {
		return err
	}
	r.Regions = append(r.Regions, here...)
	if r.MemoryFree, err = prefetch.Memory(); err != nil {
		return err
	}
	failed := p.askLeases(ctx, &r)
	if *asJSON {
		if err := json.NewEncoder(p.out).Encode(r); err != nil {
			return err
		}
	} else {
		p.printStatus(r)
	}
	return failed
}

func (p *program) askLeases(ctx context.Context, r *statusReport) error {
	c, err := agent.Find(p.dir)
	if err == nil {
		r.Server = c.Server
		var l nodeapi.Leases
		if l, err = c.Leases(ctx); err == nil {
			r.Leases = append(r.Leases, l.Leases...)
			return nil
		}
	}
	r.Error = err.Error()
	return &codeError{err, exitNetwork}
}

func (p *program) printStatus(r statusReport) {
	fmt.Fprintf(p.out, "server %s, memory free %s\n", r.Server, size(r.MemoryFree))
	for _, l := range r.Leases {
		ends := fmt.Sprintf("ends in %v", time.Until(l.Expires).Round(time.Second))
		if l.Expired {
			ends = "ended"
		}
		fmt.Fprintf(p.out, "lease  %s %-5s %s %s %s\n", l.ID, l.Mode, l.Node, strings.Join(l.Paths, " "), ends)
	}
	for _, h := range r.Regions {
		what := "running as " + fmt.Sprint(h.PID)
		if !h.Running {
			what = "LEFT BEHIND in " + h.Base + "; `rhizome-node drop " + filepath.Base(h.Base) + "` forgets it"
		}
		fmt.Fprintf(p.out, "memory %s %s %s: %s\n", filepath.Base(h.Base), size(h.Bytes), strings.Join(h.Paths, " "), what)
	}
}

// drop forgets a region that a prefetch left in memory.
func (p *program) drop(_ context.Context, args []string) error {
	if len(args) != 1 {
		return usagef("drop takes the name of one region; `rhizome-node status` lists them")
	}
	all, err := regions(p.dir)
	if err != nil {
		return err
	}
	for _, h := range all {
		if filepath.Base(h.Base) != args[0] {
			continue
		}
		if h.Running {
			return &codeError{fmt.Errorf("the region %s is in use by process %d", args[0], h.PID), exitConflict}
		}
		if err := prefetch.Unmount(h.Base); err != nil {
			return err
		}
		os.Remove(h.Base)
		return os.Remove(h.Base + ".json")
	}
	return &codeError{fmt.Errorf("there is no region %q in memory; `rhizome-node status` lists them", args[0]), exitNotFound}
}

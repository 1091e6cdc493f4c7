// Command rhizome-node is the part of rhizome that lies in images: it tells the
// server how the node fares, and works on regions of its exports in memory. It
// imports little, because it takes its size in every node's memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/cmd/rhizome-node/internal/prefetch"
)

// version is set by the linker.
var version = "unknown"

func main() {
	n := &program{out: os.Stdout, err: os.Stderr, dir: agent.RunDir()}
	if dir := os.Getenv("RHIZOME_RUN"); dir != "" {
		n.dir = dir
	}
	os.Exit(n.run(context.Background(), os.Args[1:]))
}

// program is a run of the command: where it prints, and where the early
// program left what it knows.
type program struct {
	out, err io.Writer
	dir      string
}

// command is a subcommand; run gets what follows its name.
type command struct {
	name, args, short string
	run               func(p *program, ctx context.Context, args []string) error
}

// flagged are the flags of the commands that have any.
func flagged() map[string]*flag.FlagSet {
	return map[string]*flag.FlagSet{
		"prefetch": new(prefetchOptions).flags(),
		"status":   statusFlags(new(bool)),
	}
}

func commands() []command {
	return []command{
		{"early", "", "answer the early script, which runs it", (*program).early},
		{"heartbeat", "", "tell the server that the node lives, until it is ended", (*program).heartbeat},
		{"drop", "REGION", "forget a region that a prefetch left in memory", (*program).drop},
		{"job", "NAME -- COMMAND...", "run a command as a named job, for the server to learn what it reads", (*program).job},
		{"prefetch", "[OPTIONS] PATH... -- COMMAND...", "work on paths of a writable export in memory", (*program).prefetch},
		{"report", "STEP begin|ok|failed|skipped [MESSAGE]", "tell the server of a step", (*program).report},
		{"up", "", "tell the server that userland is up", (*program).up},
		{"status", "[--json]", "list leases, and regions in memory", (*program).status},
		{"version", "", "print the version", (*program).version},
	}
}

func (p *program) run(ctx context.Context, args []string) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		p.usage()
		return helpCode(args)
	}
	if args[0] == prefetch.InsideName {
		return p.exit(p.inside(ctx, args[1:]))
	}
	if args[0] == manName {
		return p.exit(p.man())
	}
	for _, c := range commands() {
		if c.name == args[0] && len(args) > 1 && (args[1] == "-h" || args[1] == "--help") {
			p.usageOf(c)
			return exitOK
		}
		if c.name == args[0] {
			return p.exit(c.run(p, ctx, args[1:]))
		}
	}
	return p.exit(usagef("there is no command %q; `rhizome-node help` lists them", args[0]))
}

// helpCode: to ask for help is no mistake, to ask for nothing is.
func helpCode(args []string) int {
	if len(args) == 0 {
		return exitUsage
	}
	return exitOK
}

func (p *program) usage() {
	fmt.Fprintln(p.err, "usage: rhizome-node COMMAND ...")
	for _, c := range commands() {
		fmt.Fprintf(p.err, "  %-10s %-42s %s\n", c.name, c.args, c.short)
	}
}

func (p *program) usageOf(c command) {
	fmt.Fprintf(p.err, "usage: rhizome-node %s\n%s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
	if f := flagged()[c.name]; f != nil {
		f.SetOutput(p.err)
		f.PrintDefaults()
	}
}

func (p *program) version(context.Context, []string) error {
	fmt.Fprintln(p.out, version)
	return nil
}

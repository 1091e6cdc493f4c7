// Package early is rhizome-node's part in a node's way up: what the early script
// asks of it (early), telling that userland is there (up), and that the node
// lives (heartbeat). docs/node.md tells the whole story.
//
// The script runs "rhizome-node early" beside itself, and writes one question a
// line to its standard input:
//
//	hello SERVER            get this boot's token and plan
//	report<TAB>STEP<TAB>STATE<TAB>MESSAGE
//	fill DIR                read the precache bundle into DIR and lay it over the root
//	ram DIR                 read the whole root into DIR
//	bundle FILE             read the bundle's blob into FILE (FreeBSD)
//	layer NUMBER FILE       read a layer's blob into FILE, the first by number 1 (FreeBSD)
//	end                     nothing more will be asked
//
// Each question but report and end gets one line as answer: ok, later, skipped
// or failed, and a message. After "later", bundle has a second one.
package early

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// Main runs one of the subcommands: args[0] is early, up or heartbeat.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var err error
	switch args[0] {
	case "early":
		err = early(ctx, args[1:], stdout, stderr)
	case "up":
		err = tellUp(ctx, stderr)
	case "heartbeat":
		err = heartbeat(ctx, stderr)
	default:
		err = fmt.Errorf("there is no command %q", args[0])
	}
	if err != nil {
		fmt.Fprintf(stderr, "rhizome-node %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

func early(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		return errors.New("early takes no words: it is asked on its standard input")
	}
	return serveScript(ctx, os.Stdin, stdout, stderr)
}

// serveScript answers the early script until it is done.
func serveScript(ctx context.Context, in io.Reader, out, console io.Writer) error {
	s := newSession(ctx, out, console, agent.RunDir(), realSystem{})
	return s.run(in)
}

// Server is what a session asks; agent.Client is one.
type server interface {
	Boot(context.Context) (nodeapi.Boot, error)
	Plan(context.Context) (nodeapi.Plan, error)
	Report(context.Context, nodeapi.Report) error
	Get(ctx context.Context, path string, from int64, window int) (io.ReadCloser, error)
}

// system is what a session does to the machine.
type system interface {
	// Memory gives all memory and what is free for programs, in bytes.
	Memory() (total, free int64, err error)
	// Tmpfs mounts a memory file system of at most size bytes.
	Tmpfs(dir string, size int64) error
	// Overlay lays folders over each other, the uppermost first, read-only.
	Overlay(folders []string, on string) error
	// NFS mounts an export, SERVER:PATH, read-only. A server that falls silent is
	// an error of reading after a while.
	NFS(export, dir string) error
	// Mounted says whether something is mounted there already, other than by
	// Overlay, or below.
	Mounted(dir string) bool
	// Behind puts this process behind all others that want the CPU.
	Behind() error
	Unmount(dir string) error
	Uptime() time.Duration
	// NFSCalls counts what this node has asked of NFS servers since power-on; 0
	// where the system does not say.
	NFSCalls() int64
}

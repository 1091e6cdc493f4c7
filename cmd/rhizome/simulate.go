package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
	"rhizome/serve/rootfs"
	"rhizome/serve/simulate"

	"github.com/spf13/cobra"
)

// The network of a simulation lives in namespaces of its own; its addresses
// meet no others.
const (
	simulatedServer = "10.99.0.1"
	simulatedRelay  = "10.99.0.2"
	simulatedNet    = "10.99.0.0/16"
	// simulatedMost is how many nodes the addresses are enough for.
	simulatedMost = 60000
)

// simulateOptions are simulate's flags.
type simulateOptions struct {
	nodes int
	read  int64
}

func (a *app) simulateCommand() *cobra.Command {
	o := simulateOptions{}
	var read int
	cmd := &cobra.Command{
		Use:   "simulate REF [--nodes N]",
		Short: "Boot simulated machines from a server, and report what it took",
		Long: `Boot N simulated machines at once from a server of their own, over the real
protocols: DHCP as through a relay, HTTP, portmap, MOUNT and NFS. Each gets the
root of the image's first node, with an identity of its own. Server and
machines live in two network namespaces that are made for it, which needs root.`,
		Args: withImages(exact(1, "one image"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.nodes < 1 || o.nodes > simulatedMost {
				return usagef("--nodes is from 1 to %d", simulatedMost)
			}
			o.read = int64(read) << 20
			return a.simulate(cmd.Context(), args[0], o)
		},
	}
	cmd.Flags().IntVar(&o.nodes, "nodes", 64, "how many machines")
	cmd.Flags().IntVar(&read, "read", 36, "MiB that each reads from its root over NFS; a Debian node with systemd reads 36")
	return a.places(a.jsonFlag(cmd), offerImages)
}

// simulatedNodesCommand runs the machines, inside their namespace.
func (a *app) simulatedNodesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "simulated-nodes", Hidden: true, Args: exact(0, "a plan on stdin"),
		RunE: func(*cobra.Command, []string) error {
			var plan simulate.Plan
			if err := json.NewDecoder(a.in).Decode(&plan); err != nil {
				return fmt.Errorf("reading the plan of a simulation: %w", err)
			}
			boots, err := simulate.Run(plan, time.Now)
			if err != nil {
				return err
			}
			return json.NewEncoder(a.out).Encode(boots)
		},
	}
}

func (a *app) simulate(ctx context.Context, image string, o simulateOptions) error {
	if err := rig.Usable(); err != nil {
		return fmt.Errorf("simulating needs network namespaces: %w", err)
	}
	dir, err := os.MkdirTemp("", "rhizome-simulate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plan, err := a.prepareSimulation(ctx, image, dir, o)
	if err != nil {
		return err
	}
	report, err := a.runSimulation(ctx, dir, plan)
	if err != nil {
		return err
	}
	if a.json {
		err = encodeJSON(a.out, report)
	} else {
		err = report.WriteText(a.out)
	}
	if err == nil && report.Failed > 0 {
		return reported(exitFound)
	}
	return err
}

// runSimulation serves the image from one namespace and boots the nodes in
// another.
func (a *app) runSimulation(ctx context.Context, dir string, plan simulate.Plan) (simulate.Report, error) {
	var none simulate.Report
	self, err := os.Executable()
	if err != nil {
		return none, err
	}
	near, far, err := simulatedNetwork(ctx, plan)
	if near != nil {
		defer near.Close()
	}
	if far != nil {
		defer far.Close()
	}
	if err != nil {
		return none, err
	}
	server, err := near.Start(ctx, nil, self, "--store", dir, "serve", simulatedTag, "--interface", near.Bridge)
	if err != nil {
		return none, err
	}
	defer server.Stop()
	if _, _, err := server.Console.Wait(ctx, 0, `serve\.ready`); err != nil {
		return none, fmt.Errorf("the server did not start: %w\n%s", err, server.Console.Tail(2000))
	}
	before, err := processUsage(server.PID())
	if err != nil {
		return none, err
	}
	boots, err := a.bootSimulated(far.Command(ctx, self, "simulated-nodes"), plan)
	if err != nil {
		return none, err
	}
	after, err := processUsage(server.PID())
	if err != nil {
		return none, fmt.Errorf("the server ended: %w\n%s", err, server.Console.Tail(2000))
	}
	report := simulate.Summarize(boots)
	report.Server = &simulate.Usage{CPU: after.CPU - before.CPU, PeakRSS: after.PeakRSS}
	return report, nil
}

func (a *app) bootSimulated(cmd *exec.Cmd, plan simulate.Plan) ([]simulate.Boot, error) {
	data, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(data), &out, a.err
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("running the simulated nodes: %w", err)
	}
	var boots []simulate.Boot
	return boots, json.Unmarshal(out.Bytes(), &boots)
}

// simulatedNetwork makes the two namespaces and the cable between them. Every
// node's address is one of the far end's.
func simulatedNetwork(ctx context.Context, plan simulate.Plan) (near, far *rig.Net, err error) {
	name := fmt.Sprintf("rhizome-sim-%d", os.Getpid())
	if near, err = rig.NewNet(ctx, name, simulatedServer+"/16"); err != nil {
		return nil, nil, err
	}
	if far, err = rig.NewNet(ctx, name+"-nodes", simulatedRelay+"/16"); err != nil {
		return near, nil, err
	}
	var batch bytes.Buffer
	for _, n := range plan.Nodes {
		fmt.Fprintf(&batch, "addr add %s/16 dev %s\n", n.Addr, far.Bridge)
	}
	for _, s := range [][]string{
		{"ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", far.Name},
		{"ip", "link", "set", "cable", "master", near.Bridge, "up"},
	} {
		if err := near.Run(ctx, s...); err != nil {
			return near, far, err
		}
	}
	if err := far.Run(ctx, "ip", "link", "set", "cable", "master", far.Bridge, "up"); err != nil {
		return near, far, err
	}
	// A relay that has run for a while knows its server's card: without this the
	// first requests of all nodes would wait for one ARP, and most be dropped.
	mac, err := near.Command(ctx, "cat", "/sys/class/net/"+near.Bridge+"/address").Output()
	if err != nil {
		return near, far, fmt.Errorf("asking for the server's hardware address: %w", err)
	}
	for _, n := range []*rig.Net{near, far} {
		if err := settled(ctx, n); err != nil {
			return near, far, err
		}
	}
	fmt.Fprintf(&batch, "neigh replace %s lladdr %s dev %s\n", simulatedServer, bytes.TrimSpace(mac), far.Bridge)
	return near, far, feed(far.Command(ctx, "ip", "-batch", "-"), &batch)
}

// settled waits until the kernel has seen that the cable is plugged in, which
// takes it up to a second or two; what is sent before is dropped.
func settled(ctx context.Context, n *rig.Net) error {
	for range 200 {
		state, err := n.Command(ctx, "cat", "/sys/class/net/"+n.Bridge+"/operstate").Output()
		if err != nil {
			return fmt.Errorf("looking at the bridge in %s: %w", n.Name, err)
		}
		if string(bytes.TrimSpace(state)) == "up" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("the bridge in %s does not come up", n.Name)
}

func feed(cmd *exec.Cmd, in io.Reader) error {
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %.300s", cmd.Args, err, out)
	}
	return nil
}

// bootFiles picks what a boot reads: the configuration and systemd whole, then
// libraries and programs, up to a number of bytes. The folders lie below no
// symbolic link.
func bootFiles(v *rootfs.View, budget int64) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	for _, dir := range []string{"/etc", "/usr/lib/systemd", "/usr/lib/x86_64-linux-gnu", "/usr/sbin", "/usr/bin", "/usr/lib", "/boot"} {
		if _, err := v.Resolve(dir); err != nil {
			continue
		}
		err := v.Walk(dir, func(p string, _ rootfs.File, a rootfs.Attr) error {
			if a.Kind == rootfs.Regular && int64(a.Size) <= budget && !seen[p] {
				seen[p] = true
				budget -= int64(a.Size)
				files = append(files, p)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

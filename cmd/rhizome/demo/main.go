// Command demo shows the whole road on one machine: it builds a recipe, the
// shipped Debian one unless told otherwise, serves the image inside a network
// namespace of its own, and boots QEMU machines from it over the network, one
// for each node. `make demo` and `make freebsd` run it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
	"rhizome/registry/imagefmt"
)

// image is the demo's name in its own store.
const image = "demo:latest"

// binary is where `make build` puts the program.
const binary = "bin/rhizome"

// show is what to build and boot.
type show struct {
	recipe string
	// store keeps what was built for the next time; empty is a folder that
	// goes when the demo ends.
	store string
	// until is the pattern that a console must show.
	until string
	// firmware and cards are for the nodes, in order; the last is for all
	// further ones.
	firmware, cards []string
	memory          int
	// tail is how much of each console is shown at the end, in bytes.
	tail  int
	limit time.Duration
}

func flags() show {
	var s show
	var firmware, cards string
	flag.StringVar(&s.recipe, "recipe", "debian-demo", "a recipe's file, or a shipped recipe's name")
	flag.StringVar(&s.store, "store", "", "the store to build into and to keep (default: one for this run alone)")
	flag.StringVar(&s.until, "until", `NODE-UP name=\S+ digest=sha256:[0-9a-f]{64}`, "what every console must show")
	flag.StringVar(&firmware, "firmware", "bios", "bios or uefi, by node")
	flag.StringVar(&cards, "cards", "virtio-net-pci", "QEMU's network cards, by node")
	flag.IntVar(&s.memory, "memory", 512, "MB of memory a machine")
	flag.IntVar(&s.tail, "tail", 0, "how many bytes of the end of each console to show")
	flag.DurationVar(&s.limit, "limit", 10*time.Minute, "how long the machines may take to come up")
	flag.Parse()
	s.firmware, s.cards = strings.Split(firmware, ","), strings.Split(cards, ",")
	return s
}

// of is the element for node i.
func of(list []string, i int) string { return list[min(i, len(list)-1)] }

func main() {
	s := flags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := s.demo(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func (s show) demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "rhizome-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store := s.store
	if store == "" {
		store = filepath.Join(dir, "store")
	}
	step("building the recipe " + s.recipe + ": stages -> layers -> cluster image")
	if err := rhizome(ctx, os.Stdout, "--store", store, "build", s.recipe, "--tag", image); err != nil {
		return err
	}
	step("what the store holds now")
	if err := rhizome(ctx, os.Stdout, "--store", store, "images"); err != nil {
		return err
	}
	if err := rig.Usable(); err != nil {
		fmt.Printf("skipped: booting machines: %v\n", err)
		return nil
	}
	return s.boot(ctx, dir, store)
}

func (s show) boot(ctx context.Context, dir, store string) error {
	nodes, network, err := inspect(ctx, store)
	if err != nil {
		return err
	}
	cpu := rig.Emulation
	kernel := filepath.Join(dir, "vmlinuz")
	if k := nodes[0].Node.Boot.Kernel; k != "" && nodes[0].Node.Boot.OS == "linux" {
		if err := save(ctx, kernel, "--store", store, "cat", image, nodes[0].Node.Name, k); err != nil {
			return err
		}
		cpu = rig.Accelerate(ctx, kernel)
	}
	cidr := netip.PrefixFrom(network.Server, network.Subnet.Bits()).String()
	net, err := rig.NewNet(ctx, fmt.Sprintf("rhizome-demo-%d", os.Getpid()), cidr)
	if err != nil {
		return err
	}
	defer net.Close()
	step("serving it in the network namespace " + net.Name)
	abs, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	server, err := net.Start(ctx, prefixed("serve"), abs, "--store", store, "serve", image, "--interface", net.Bridge)
	if err != nil {
		return err
	}
	defer server.Stop()
	if _, _, err := server.Console.Wait(ctx, 0, `serve\.ready`); err != nil {
		return fmt.Errorf("serve did not start: %w", err)
	}
	return s.bootAll(ctx, net, nodes, cpu)
}

func (s show) bootAll(ctx context.Context, net *rig.Net, nodes []node, cpu []string) error {
	step(fmt.Sprintf("switching on %d machine(s) with %s", len(nodes), strings.Join(cpu, " ")))
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, errors.New("the machines did not come up in time"))
	defer cancel()
	begin := time.Now()
	var machines []*rig.Running
	defer func() {
		for _, m := range machines {
			m.Off()
		}
	}()
	for i, n := range nodes {
		m, err := net.Boot(ctx, rig.Machine{
			Name: n.Node.Name, MAC: n.Node.MACs[0], MemoryMB: s.memory, CPU: cpu,
			Firmware: rig.Firmware(of(s.firmware, i)), NIC: of(s.cards, i),
		}, nil)
		if err != nil {
			return err
		}
		machines = append(machines, m)
	}
	var up []string
	for i, m := range machines {
		line, _, err := m.Console.Wait(ctx, 0, s.until)
		if err != nil {
			return fmt.Errorf("%s: %w; its console ends with:\n%s", nodes[i].Node.Name, err, m.Console.Tail(3000))
		}
		up = append(up, line[0])
	}
	step(fmt.Sprintf("all machines are up, %s after power-on:", time.Since(begin).Round(time.Second)))
	for _, l := range up {
		fmt.Println(l)
	}
	for i, m := range machines {
		if s.tail > 0 {
			step(fmt.Sprintf("the console of %s ends with", nodes[i].Node.Name))
			fmt.Println(m.Console.Tail(s.tail))
		}
	}
	return nil
}

// node is what inspect says of one.
type node struct {
	Node imagefmt.Node `json:"node"`
}

func inspect(ctx context.Context, store string) ([]node, imagefmt.Network, error) {
	out, err := exec.CommandContext(ctx, binary, "--store", store, "inspect", image, "--json").Output()
	if err != nil {
		return nil, imagefmt.Network{}, fmt.Errorf("rhizome inspect: %w", err)
	}
	var in struct {
		Cluster imagefmt.Cluster `json:"cluster"`
		Nodes   []node           `json:"nodes"`
	}
	if err := json.Unmarshal(out, &in); err != nil {
		return nil, imagefmt.Network{}, fmt.Errorf("reading what rhizome inspect says: %w", err)
	}
	return in.Nodes, in.Cluster.Network, nil
}

func step(what string) { fmt.Printf("\n== %s\n", what) }

func prefixed(name string) func(string) {
	return func(line string) { fmt.Printf("%s | %s\n", name, line) }
}

func rhizome(ctx context.Context, out *os.File, args ...string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("rhizome %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func save(ctx context.Context, file string, args ...string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(rhizome(ctx, f, args...), f.Close())
}

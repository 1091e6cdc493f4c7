// Command boots is the tool of bench/boots.sh: it boots one QEMU machine again
// and again, by turns from rhizome and from dnsmasq with nfs-ganesha, and
// measures the time from power-on to userland and the CPU that all processes of
// the server took for it. Kernel, initrd and root are the same; each server has
// a network namespace and a cgroup of its own. With -links it is the tool of
// bench/boot.sh: calls, bytes and waiting over slow links, without and with a
// precache bundle.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
	"rhizome/registry/imagefmt"
)

// bench is what is measured.
type bench struct {
	binary, store, image, dir string
	boots, rounds             int
	memory                    int
	limit                     time.Duration
	lock                      string
	links, only               string
	bundled, filled           string
	node                      imagefmt.Node
	network                   imagefmt.Network
	root                      string
	cpu                       []string
}

func main() {
	b := bench{}
	flag.StringVar(&b.binary, "rhizome", "bin/rhizome", "the program under test")
	flag.StringVar(&b.store, "store", "", "the store that holds the image")
	flag.StringVar(&b.image, "image", "debian-demo:latest", "the image; its first node boots")
	flag.StringVar(&b.dir, "dir", "", "a folder for the peer's root and settings")
	flag.IntVar(&b.boots, "boots", 20, "boots from each server that count; one more goes before, to warm caches")
	flag.IntVar(&b.memory, "memory", 512, "MB of memory of the machine")
	flag.DurationVar(&b.limit, "limit", 10*time.Minute, "how long one boot may take")
	flag.StringVar(&b.lock, "lock", "", "a file that is locked during each boot, for machines on which others boot too")
	flag.StringVar(&b.links, "links", "", "speeds such as 10mbit,1gbit: boot once over each and follow the workload of bench/boot")
	flag.IntVar(&b.rounds, "rounds", 1, "with -links, boots over each link from each server; the one in the middle is reported")
	flag.StringVar(&b.bundled, "bundled", "", "with -links, the same image with a precache bundle")
	flag.StringVar(&b.filled, "filled", "", "with -links, that image with a workload that waits for the bundle")
	flag.StringVar(&b.only, "only", "", "with -links, the one server to boot from")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "boots:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := rig.Usable(); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if b.links != "" {
		servers := []kind{{"rhizome", ours}, {"rhizome, precache", from(b.bundled)}, {filledName, from(b.filled)}, kinds[1]}
		if b.only != "" {
			servers = slices.DeleteFunc(servers, func(k kind) bool { return k.name != b.only })
		}
		return b.overLinks(ctx, strings.Split(b.links, ","), servers)
	}
	var servers []*server
	defer func() {
		for _, s := range servers {
			err = errors.Join(err, s.close())
		}
	}()
	for i, k := range kinds {
		s, err := b.start(ctx, i, k)
		if s != nil {
			servers = append(servers, s)
		}
		if err != nil {
			return fmt.Errorf("starting %s: %w", k.name, err)
		}
	}
	for i := range b.boots + 1 {
		for _, s := range servers {
			if err := s.measure(ctx, b, i > 0); err != nil {
				return fmt.Errorf("boot %d from %s: %w", i, s.kind.name, err)
			}
		}
	}
	report(os.Stdout, servers)
	return nil
}

// prepare reads the node out of the image, and lays its root into a folder for
// the peer.
func (b *bench) prepare(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, b.binary, "--store", b.store, "inspect", b.image, "--json").Output()
	if err != nil {
		return fmt.Errorf("rhizome inspect: %w", err)
	}
	var in struct {
		Cluster imagefmt.Cluster
		Nodes   []struct{ Node imagefmt.Node }
	}
	if err := json.Unmarshal(out, &in); err != nil {
		return fmt.Errorf("reading what rhizome inspect says: %w", err)
	}
	if len(in.Nodes) == 0 {
		return fmt.Errorf("the image %q has no node", b.image)
	}
	b.node, b.network, b.root = in.Nodes[0].Node, in.Cluster.Network, filepath.Join(b.dir, "root")
	cmd := exec.CommandContext(ctx, b.binary, "--store", b.store, "export", b.image, b.node.Name, "--format", "dir", "--output", b.root)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("rhizome export: %w: %s", err, said)
	}
	// The node's ssh keys are in no image; without them sshd fails, and userland
	// is another one.
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		if said, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f",
			filepath.Join(b.root, "etc/ssh/ssh_host_"+kind+"_key")).CombinedOutput(); err != nil && !exists(filepath.Join(b.root, "etc/ssh/ssh_host_"+kind+"_key")) {
			return fmt.Errorf("ssh-keygen: %w: %s", err, said)
		}
	}
	b.cpu = rig.Accelerate(ctx, filepath.Join(b.root, b.node.Boot.Kernel))
	return nil
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

//go:build linux

// Command dhcp is the load of bench/dhcp.sh: "serve" answers for many static
// machines with the package that rhizome serves with, "load" boots them over
// and over, each time by DISCOVER, OFFER, REQUEST and ACK, and prints how many
// exchanges were done in a second.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench/dhcp:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: dhcp serve|load [flags]")
	}
	f := flag.NewFlagSet(args[0], flag.ExitOnError)
	ifname := f.String("interface", "br0", "network interface")
	nodes := f.Int("nodes", 640, "machines")
	window := f.Int("window", 64, "machines that boot at once (load)")
	took := f.Duration("for", 10*time.Second, "how long (load)")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if args[0] == "serve" {
		return serve(*ifname, *nodes)
	}
	return load(*ifname, *nodes, *window, *took)
}

// mac and address number the machines.
func mac(i int) net.HardwareAddr { return net.HardwareAddr{2, 0x77, 0, 0, byte(i >> 8), byte(i)} }
func address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 77, byte(1 + i/250), byte(1 + i%250)})
}

type table map[string]dhcp.Machine

func (t table) ByMAC(mac net.HardwareAddr) (dhcp.Machine, bool) {
	m, ok := t[string(mac)]
	return m, ok
}

func machines(nodes int) table {
	c := imagefmt.Cluster{Name: "bench", Network: imagefmt.Network{Subnet: netip.MustParsePrefix("10.77.0.0/16"), Server: netip.MustParseAddr("10.77.0.1")}}
	t := table{}
	for i := range nodes {
		t[string(mac(i))] = dhcp.Machine{Cluster: c, Node: imagefmt.Node{
			Name: fmt.Sprintf("n%d", i), MACs: []string{mac(i).String()}, Address: address(i),
			Boot: imagefmt.Boot{OS: "linux", BIOS: "/pxelinux.0"},
		}}
	}
	return t
}

func serve(ifname string, nodes int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var events atomic.Int64
	s := dhcp.Server{
		Config: dhcp.Config{Interface: ifname}, Nodes: machines(nodes), ProbeEvery: -1,
		Events: func(boot.Event) { events.Add(1) },
		Ready:  func() { fmt.Println("ready") },
	}
	return s.Serve(ctx)
}

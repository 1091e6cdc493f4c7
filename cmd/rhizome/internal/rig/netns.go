// Package rig holds what the demo and the end-to-end tests share: a network
// namespace with a bridge and taps, QEMU machines that boot from its network,
// and a rhizome process that serves them. Nothing in it leaves the namespace.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Net is a network namespace of our own with a bridge in it. The server's
// address is the bridge's; every machine gets a tap on the bridge.
type Net struct {
	Name   string
	Bridge string
	taps   int
}

// Usable says why a namespace cannot be made here, or nil.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: network namespaces and taps need it")
	}
	for _, tool := range []string{"ip", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is not installed", tool)
		}
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("no taps here: %w", err)
	}
	return nil
}

// NewNet makes the namespace and gives its bridge an address such as
// "10.77.0.1/24". Close removes it with all that is in it.
func NewNet(ctx context.Context, name, cidr string) (*Net, error) {
	n := &Net{Name: name, Bridge: "br0"}
	if err := run(ctx, "ip", "netns", "add", name); err != nil {
		return nil, err
	}
	steps := [][]string{
		{"ip", "link", "set", "lo", "up"},
		// A bridge that snoops on multicast joins a group of its own, and tells so
		// twice, at moments of the kernel's choice.
		{"ip", "link", "add", n.Bridge, "type", "bridge", "mcast_snooping", "0"},
		{"ip", "addr", "add", cidr, "dev", n.Bridge},
		{"ip", "link", "set", n.Bridge, "up"},
	}
	for _, s := range steps {
		if err := n.Run(ctx, s...); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	return n, nil
}

// Close removes the namespace. Processes in it keep it alive until they end.
func (n *Net) Close() error {
	return run(context.Background(), "ip", "netns", "del", n.Name)
}

// Command prepares a command that runs inside the namespace.
func (n *Net) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name}, args...)...)
}

// Run runs a command inside the namespace to its end.
func (n *Net) Run(ctx context.Context, args ...string) error {
	return run(ctx, append([]string{"ip", "netns", "exec", n.Name}, args...)...)
}

// Tap adds a tap to the bridge and returns its name.
func (n *Net) Tap(ctx context.Context) (string, error) {
	tap := fmt.Sprintf("tap%d", n.taps)
	n.taps++
	for _, s := range [][]string{
		{"ip", "tuntap", "add", tap, "mode", "tap"},
		{"ip", "link", "set", tap, "master", n.Bridge},
		{"ip", "link", "set", tap, "up"},
	} {
		if err := n.Run(ctx, s...); err != nil {
			return "", err
		}
	}
	return tap, nil
}

func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/doctor"
	"rhizome/cmd/rhizome/internal/rig"
)

// ward is a network with an image to be looked at, and the program.
type ward struct {
	t      *testing.T
	net    *rig.Net
	binary string
	store  string
}

func newWard(t *testing.T, name string) *ward {
	t.Helper()
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	w := &ward{t: t, store: filepath.Join(t.TempDir(), "store"), binary: filepath.Join(t.TempDir(), "rhizome")}
	if code, _, errs := rhizome(t, "--store", w.store, "build", tiny(t), "--tag", "bsd"); code != 0 {
		t.Fatalf("build: %s", errs)
	}
	if out, err := exec.Command("go", "build", "-o", w.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	n, err := rig.NewNet(t.Context(), fmt.Sprintf("rz-%s-%d", name, os.Getpid()), "10.77.0.1/24")
	if err != nil {
		t.Skipf("skipped: no network namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	w.net = n
	w.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1") // which would send by itself
	w.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	w.run("ip", "link", "set", "v0", "master", n.Bridge, "up")
	w.run("ip", "link", "set", "v1", "up")
	awaitCarrier(t, n)
	return w
}

// awaitCarrier waits until the bridge forwards to its port.
func awaitCarrier(t *testing.T, n *rig.Net) {
	t.Helper()
	for range 200 {
		out, err := n.Command(t.Context(), "ip", "-br", "link", "show", "dev", n.Bridge).Output()
		if err == nil && strings.Contains(string(out), "LOWER_UP") {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the bridge has no carrier")
}

func (w *ward) run(args ...string) {
	w.t.Helper()
	if err := w.net.Run(w.t.Context(), args...); err != nil {
		w.t.Fatal(err)
	}
}

// doctor runs doctor in the namespace and gives what it found.
func (w *ward) doctor(args ...string) (found []doctor.Finding, said string) {
	w.t.Helper()
	c := w.net.Command(w.t.Context(), append([]string{w.binary, "--store", w.store, "doctor", "bsd", "--json"}, args...)...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if json.Unmarshal(out, &found) != nil {
		w.t.Fatalf("doctor: %v\n%s\n%s", err, out, stderr.String())
	}
	if want := map[bool]int{true: exitFound, false: exitOK}[len(found) > 0]; exitOf(err) != want {
		w.t.Errorf("exit code %d, want %d: %s", exitOf(err), want, stderr.String())
	}
	return found, stderr.String()
}

// start runs a program in the namespace until the test ends.
func (w *ward) start(in *rig.Net, args ...string) *rig.Server {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	w.t.Cleanup(cancel)
	s, err := in.Start(ctx, nil, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(s.Kill)
	return s
}

func wants(t *testing.T, found []doctor.Finding, texts ...string) {
	t.Helper()
	if len(found) != len(texts) {
		t.Errorf("%d finding(s), want %d: %v", len(found), len(texts), found)
	}
	for _, want := range texts {
		if !strings.Contains(fmt.Sprint(found), want) {
			t.Errorf("nothing says %q: %v", want, found)
		}
	}
}

// Asked to, doctor finds who else has the server's or a node's address, and
// another DHCP server; unasked it sends nothing.
func TestDoctorAsksOnTheWireOnlyWhenTold(t *testing.T) {
	w := newWard(t, "probe")
	found, said := w.doctor()
	wants(t, found)
	if !strings.Contains(said, "--probe") {
		t.Errorf("it does not say that nobody was asked: %s", said)
	}
	// Another machine on the wire, with n2's address, that gives addresses; later
	// it has the server's as well.
	other, err := rig.NewNet(t.Context(), fmt.Sprintf("rz-other-%d", os.Getpid()), "10.99.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
	w.run("ip", "link", "set", "v1", "netns", other.Name)
	for _, s := range [][]string{
		{"ip", "link", "set", "v1", "up"}, {"ip", "addr", "add", "10.77.0.12/24", "dev", "v1"},
	} {
		if err := other.Run(t.Context(), s...); err != nil {
			t.Fatal(err)
		}
	}
	awaitCarrier(t, w.net)
	w.start(other, "dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--no-ping", "--dhcp-authoritative",
		"--dhcp-leasefile=/dev/null", "--interface=v1", "--bind-interfaces", "--dhcp-range=10.77.0.50,10.77.0.60")
	awaitPort(t, other, "67")
	before := sent(t, w.net)
	found, _ = w.doctor()
	wants(t, found)
	if after := sent(t, w.net); after != before {
		t.Errorf("unasked, frames were sent: %s, then %s", before, after)
	}
	found, _ = w.doctor("--probe")
	wants(t, found, "the address 10.77.0.12 of node \"n2\" is used by", "another DHCP server, 10.77.0.12")
	if err := other.Run(t.Context(), "ip", "addr", "add", "10.77.0.1/24", "dev", "v1"); err != nil {
		t.Fatal(err)
	}
	// It takes no question that comes from what it has for its own address, so
	// this is all that it says of addresses.
	found, _ = w.doctor("--probe")
	if !strings.Contains(fmt.Sprint(found), "the address 10.77.0.1 of this server is used by") {
		t.Errorf("nothing says that the server's address is taken: %v", found)
	}
}

// sent counts the frames that the server's interface has sent.
func sent(t *testing.T, n *rig.Net) string {
	t.Helper()
	out, err := n.Command(t.Context(), "cat", "/sys/class/net/"+n.Bridge+"/statistics/tx_packets").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// The ports of the very serve that is asked about are no finding; those of
// another are, with its name.
func TestDoctorKnowsTheServeOfItsStore(t *testing.T) {
	w := newWard(t, "serves")
	s := w.start(w.net, w.binary, "--store", w.store, "serve", "bsd", "--interface", w.net.Bridge)
	awaitPort(t, w.net, "2049")
	awaitPort(t, w.net, "67")
	found, said := w.doctor()
	wants(t, found)
	if !strings.Contains(said, fmt.Sprintf("process %d is serving bsd", s.PID())) {
		t.Errorf("it does not say who serves: %s", said)
	}
	if code, _, errs := rhizome(t, "--store", w.store, "pin", "rack", "bsd"); code != 0 {
		t.Fatal(errs)
	}
	out, err := w.net.Command(t.Context(), w.binary, "--store", w.store, "doctor", "rack").Output()
	if exitOf(err) != exitFound || !strings.Contains(string(out), "(it is serving bsd)") {
		t.Errorf("exit code %d: %s", exitOf(err), out)
	}
}

// A DHCP server on another interface is nobody's trouble; one on all of them is.
func TestDoctorTellsWhoseInterfaceAPortIsOn(t *testing.T) {
	w := newWard(t, "ports")
	w.run("ip", "link", "add", "v2", "type", "veth", "peer", "name", "v3")
	w.run("ip", "addr", "add", "10.88.0.1/24", "dev", "v2")
	w.run("ip", "link", "set", "v2", "up")
	dnsmasq := []string{"dnsmasq", "--no-daemon", "--port=0", "--conf-file=/dev/null", "--dhcp-leasefile=/dev/null", "--dhcp-range=10.88.0.50,10.88.0.60"}
	held := w.start(w.net, append(dnsmasq, "--interface=v2", "--bind-interfaces")...)
	awaitPort(t, w.net, "67")
	found, _ := w.doctor()
	wants(t, found)
	held.Kill()
	w.start(w.net, dnsmasq...)
	awaitPort(t, w.net, "67")
	found, _ = w.doctor()
	wants(t, found, "UDP port 67: the port is taken by dnsmasq")
}

package dhcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
)

// lease gets one lease with busybox and returns its file.
func (m *machine) lease(t *testing.T) string {
	t.Helper()
	script, lease := leaseScript(t)
	out, err := m.command(m.name, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "20", "-T", "1", "-i", m.dev, "-s", script).CombinedOutput()
	if err != nil {
		t.Fatalf("udhcpc: %v\n%s", err, out)
	}
	return lease
}

func TestAnUnknownMACIsNotAnsweredAndReportedOnce(t *testing.T) {
	t.Parallel()
	needs(t, "busybox")
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	stranger := l.machine("52:54:00:77:00:99")
	out, err := l.command(stranger.name, "busybox", "udhcpc", "-f", "-q", "-n", "-t", "4", "-T", "1", "-i", stranger.dev, "-s", "/bin/true").CombinedOutput()
	if err == nil {
		t.Fatalf("it was answered:\n%s", out)
	}
	if e := s.wait(boot.DHCPUnknown); e.MAC != "52:54:00:77:00:99" || e.Client != "udhcpc" {
		t.Errorf("the event is %+v", e)
	}
	l.machine("52:54:00:77:00:01").lease(t)
	if e := <-s.events; e.Kind != boot.DHCPDiscover {
		t.Errorf("after one event the stranger makes another: %+v", e)
	}
}

func TestAnAddressOfBeforeIsRefusedAndTheNodeAsksAnew(t *testing.T) {
	t.Parallel()
	needs(t, "dhclient")
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	script, lease := leaseScript(t)
	old := fmt.Sprintf("lease {\n interface %q;\n fixed-address 10.77.0.77;\n option subnet-mask 255.255.255.0;\n option dhcp-lease-time 36000;\n option dhcp-server-identifier 10.77.0.1;\n renew never;\n rebind never;\n expire never;\n}\n", m.dev)
	if err := os.WriteFile(lease+"s", []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := l.command(m.name, "dhclient", "-1", "-v", "-sf", script, "-lf", lease+"s", "-pf", lease+".pid", "-cf", "/dev/null", m.dev).CombinedOutput()
	if err != nil {
		t.Fatalf("dhclient: %v\n%s", err, out)
	}
	if e := s.wait(boot.DHCPNak); !strings.Contains(e.Error, "10.77.0.77 is not the node's") {
		t.Errorf("the event is %+v", e)
	}
	expectLines(t, lease, "new_ip_address=10.77.0.51")
	_ = l.command(m.name, "dhclient", "-x", "-pf", lease+".pid", "-lf", lease+"s", "-cf", "/dev/null", m.dev).Run()
}

func TestAnAddressThatAnotherMachineUsesIsReported(t *testing.T) {
	t.Parallel()
	needs(t, "busybox")
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	thief := l.machine("52:54:00:77:00:66")
	l.ip(thief.name, "addr add 10.77.0.51/24 dev "+thief.dev)
	m := l.machine("52:54:00:77:00:01")
	// -a has the client look before it takes the address, and decline it.
	l.background(l.command(m.name, "busybox", "udhcpc", "-f", "-a", "-i", m.dev, "-s", "/bin/true"))
	e := s.wait(boot.DHCPConflict)
	if e.Node != "suigintou" || e.MAC != "52:54:00:77:00:66" || !strings.Contains(e.Error, "52:54:00:77:00:66") {
		t.Errorf("the event is %+v", e)
	}
	s.wait(boot.DHCPDecline)
	if e := s.wait(boot.DHCPConflict); e.MAC != "52:54:00:77:00:01" || !strings.Contains(e.Error, "declined") {
		t.Errorf("the event is %+v", e)
	}
}

func TestAnotherDHCPServerIsFoundByAskingForIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.dnsmasqDHCP()
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}, ProbeEvery: time.Second})
	if e := s.wait(boot.DHCPForeign); e.Addr.String() != "10.77.0.2" {
		t.Errorf("the event is %+v", e)
	}
}

func TestANodeThatTakesAnotherServersOfferIsReported(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	other := linuxNode()
	other.Node.MACs = []string{"52:54:00:77:00:02"}
	s := l.serve(serverSpec{Machines: []dhcp.Machine{other}, ProbeEvery: -1})
	l.dnsmasqDHCP("--dhcp-host=52:54:00:77:00:01,10.77.0.151")
	m := l.machine("52:54:00:77:00:01")
	m.lease(t) // from dnsmasq alone: ours does not know it
	s.wait(boot.DHCPUnknown)

	// Now a request for that server's offer comes from a node of ours.
	l.ip(m.name, "link set "+m.dev+" down address 52:54:00:77:00:02")
	l.ip(m.name, "link set "+m.dev+" up")
	request := readHex(t, "testdata/packets/udhcpc-request.hex")
	copy(request[28:], []byte{0x52, 0x54, 0, 0x77, 0, 2})
	copy(findOption(t, request, 54), []byte{10, 77, 0, 2})
	m.broadcast(request)
	e := s.wait(boot.DHCPForeign)
	if e.Node != "suigintou" || e.Detail != "10.77.0.2" {
		t.Errorf("the event is %+v", e)
	}
}

func TestARelayCarriesARackToTheServer(t *testing.T) {
	t.Parallel()
	relays := map[string]func(rack string) []string{
		"isc": func(string) []string { return []string{"dhcrelay", "-d", "-4", "-a", "10.77.0.1"} },
		"dnsmasq": func(string) []string {
			return []string{"dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file", "--dhcp-relay=10.78.0.1,10.77.0.1"}
		},
	}
	for name, command := range relays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			needs(t, "busybox", command("")[0])
			relayed(t, command)
		})
	}
}

// relayed puts a node behind a router that runs a relay.
func relayed(t *testing.T, relay func(rack string) []string) {
	l := newLab(t)
	m := linuxNode()
	m.Cluster.Network.Subnet = mustPrefix("10.78.0.0/24")
	m.Cluster.Network.Gateway = mustAddr("10.78.0.1")
	m.Node.Address = mustAddr("10.78.0.51")
	s := l.serve(serverSpec{Config: dhcp.Config{ServerAddr: mustAddr("10.77.0.1")}, Machines: []dhcp.Machine{m}})
	router := l.machine("52:54:00:77:00:03")
	l.ip(router.name, "addr add 10.77.0.3/24 dev "+router.dev)
	l.ip(l.ns, "route add 10.78.0.0/24 via 10.77.0.3")
	node := &machine{lab: l, name: l.ns + "-node", dev: fmt.Sprintf("n%d", os.Getpid()%100000)}
	l.netns(node.name)
	l.ip(router.name, fmt.Sprintf("link add rack type veth peer name %s netns %s address 52:54:00:77:00:01", node.dev, node.name))
	l.ip(router.name, "addr add 10.78.0.1/24 dev rack")
	l.ip(router.name, "link set rack up")
	l.ip(node.name, "link set "+node.dev+" up")
	args := relay("rack")
	l.background(l.command(router.name, args[0], args[1:]...))
	lease := node.lease(t)
	expectLines(t, lease, "ip=10.78.0.51", "router=10.78.0.1", "serverid=10.77.0.1")
	if e := s.wait(boot.DHCPAck); !strings.Contains(e.Detail, "relay 10.78.0.1") {
		t.Errorf("the event is %+v", e)
	}
}

func TestTheInterfaceGoesDownAndUpAndIsMadeAnew(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.serve(serverSpec{Config: dhcp.Config{ServerAddr: mustAddr("10.77.0.1")}, Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	m.lease(t)

	l.ip(l.ns, "link set br0 down")
	s.waitLog("the interface is down")
	l.ip(l.ns, "link set br0 up")
	s.waitLog("the interface is up again")
	m.lease(t)

	l.ip(l.ns, "addr del 10.77.0.1/24 dev br0")
	s.waitLog("has lost the server's address 10.77.0.1")
	l.ip(l.ns, "addr add 10.77.0.1/24 dev br0")
	s.waitLog("has the server's address 10.77.0.1 again")

	l.ip(l.ns, "link del br0")
	s.waitLog("the interface is gone")
	s.drain()
	l.ip(l.ns, "link add br0 address 52:54:00:77:00:f1 type bridge forward_delay 0")
	l.ip(l.ns, "addr add 10.77.0.1/24 dev br0")
	l.ip(l.ns, "link set port1 master br0 up")
	l.ip(l.ns, "link set br0 up")
	s.wait(boot.ServeReady)
	m.lease(t)
}

func TestAnUnknownInterfaceAndATakenPortAreSentences(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for name, c := range map[string]struct {
		config dhcp.Config
		taken  bool
		want   []string
	}{
		"no such interface": {config: dhcp.Config{Interface: "eth9"}, want: []string{`"eth9"`, "no such interface", "lo, br0"}},
		"no Ethernet":       {config: dhcp.Config{Interface: "lo"}, want: []string{`"lo"`, "no Ethernet interface"}},
		"wrong address":     {config: dhcp.Config{ServerAddr: mustAddr("10.9.9.9")}, want: []string{"does not have the server's address 10.9.9.9 but 10.77.0.1"}},
		"second server":     {taken: true, want: []string{"port 67", "taken by", "--dhcp off"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.taken {
				l.serve(serverSpec{})
			}
			second := l.start(serverSpec{Config: c.config})
			var exit *exec.ExitError
			if err := second.cmd.Wait(); !errors.As(err, &exit) {
				t.Fatalf("it started: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(second.log.String(), want) {
					t.Errorf("the error does not say %q: %s", want, second.log)
				}
			}
		})
	}
}

func TestANodeGetsItsLeaseAmidRandomPackets(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	vandal := l.machine("52:54:00:77:00:66")
	m := l.machine("52:54:00:77:00:01")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); vandal.flood(ctx) }()
	lease := m.lease(t)
	stop()
	<-done
	expectLines(t, lease, "ip=10.77.0.51")
	s.wait(boot.DHCPBad)
}

// vandalEnv starts the test's own program as a sender of packets.
const vandalEnv = "RZT_DHCP_SEND"

type sending struct {
	Packets [][]byte
	Forever bool
}

// sendSpec broadcasts packets to the server's port; in a flood, mutated ones.
func sendSpec(text string) error {
	var s sending
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4zero, Port: 68})
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		for _, p := range s.Packets {
			if s.Forever {
				p = mutate(p)
				time.Sleep(200 * time.Microsecond) // the pace of the flood
			}
			if _, err := c.WriteToUDP(p, &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil && !s.Forever {
				return err
			}
		}
		if !s.Forever {
			return nil
		}
	}
}

func mutate(p []byte) []byte {
	p = append([]byte(nil), p[:rand.IntN(len(p)+1)]...)
	for range rand.IntN(8) {
		if len(p) > 0 {
			p[rand.IntN(len(p))] = byte(rand.Uint32())
		}
	}
	return p
}

func (m *machine) sender(s sending) *exec.Cmd {
	text, err := json.Marshal(s)
	if err != nil {
		m.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	// A broadcast needs a route, and a source that is not the server's.
	_ = exec.Command("ip", "-n", m.name, "route", "add", "default", "dev", m.dev).Run()
	cmd := m.command(m.name, self)
	cmd.Env = append(os.Environ(), vandalEnv+"="+string(text))
	return cmd
}

func (m *machine) broadcast(packets ...[]byte) {
	m.t.Helper()
	if out, err := m.sender(sending{Packets: packets}).CombinedOutput(); err != nil {
		m.t.Fatalf("sending: %v\n%s", err, out)
	}
}

func (m *machine) flood(ctx context.Context) {
	cmd := m.sender(sending{Packets: fixturePackets(m.t), Forever: true})
	if err := cmd.Start(); err != nil {
		return
	}
	<-ctx.Done()
	_ = cmd.Cancel()
	_ = cmd.Wait()
}

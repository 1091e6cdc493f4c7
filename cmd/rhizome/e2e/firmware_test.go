package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/cmd/rhizome/internal/rig"
)

// This file boots machines by every road to the same root: by firmware, by
// loader, by stick, beside another DHCP server and behind a router. The kernel's
// first look for init on its root ends a road: what follows is the same on all.
const kernelIsUp = `nfs\.init node=%s `

// upTo waits for steps of a boot in what serve says, in order, and for the
// kernel of the node to look for its init.
func upTo(t *testing.T, s *rig.Server, node string, steps ...string) {
	t.Helper()
	at := 0
	for _, step := range append(steps, fmt.Sprintf(kernelIsUp, node)) {
		_, at = awaitIn(t, s.Console, at, step)
	}
}

// uefi makes OVMF the firmware. The card has no ROM: the firmware's own network
// stack does the work. fwcfg turns parts of it off.
func uefi(fwcfg ...string) func(*rig.Machine) {
	return func(m *rig.Machine) {
		m.Firmware, m.NIC = rig.UEFI, "virtio-net-pci,romfile="
		for _, setting := range fwcfg {
			m.Extra = append(m.Extra, "-fw_cfg", "name=opt/org.tianocore/"+setting)
		}
	}
}

func TestUEFIBootsByPXE(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serve(t, n)
	w.boot(t, n, 1, uefi())
	upTo(t, s, "n1", `dhcp\.ack node=n1 .*client="UEFI x64 PXE"`, `tftp\.done .*/snponly\.efi`,
		`dhcp\.ack node=n1 .*client="iPXE \(UEFI x64\)"`, `http\.done .*/vmlinuz`)
}

func TestUEFIBootsOverHTTP(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serve(t, n)
	w.boot(t, n, 1, uefi("IPv4PXESupport,string=n", "IPv6PXESupport,string=n"))
	upTo(t, s, "n1", `dhcp\.ack node=n1 .*client="UEFI x64 HTTP boot"`, `http\.done .*/snponly\.efi`, `http\.done .*/vmlinuz`)
	if strings.Contains(s.Console.Text(), " tftp.") {
		t.Errorf("a machine that boots over HTTP asked for something over TFTP:\n%s", s.Console.Text())
	}
}

func TestPxelinuxBootsOverTFTP(t *testing.T) {
	w := alone(t)
	n := lan(t)
	s := w.serveImage(t, n, "e2e:pxelinux")
	w.boot(t, n, 1, nil)
	upTo(t, s, "n1", `tftp\.done .*/pxelinux\.0`, `tftp\.done .*pxelinux\.cfg/01-52-54-00-77-00-01`,
		`tftp\.done .*/vmlinuz`, `tftp\.done .*/initrd`)
}

// The firmware of this machine has no network driver switched on: all it can do
// is start from the stick.
func TestBootStickBootsAMachineWithoutNetworkFirmware(t *testing.T) {
	w := alone(t)
	stick := filepath.Join(t.TempDir(), "stick.img")
	if _, err := w.run("--store", w.store, "export", "e2e:v1", "n1", "--format", "usb", "--output", stick); err != nil {
		t.Fatal(err)
	}
	n := lan(t)
	s := w.serve(t, n)
	// The stick names no node: n2 boots from the one that n1's root gave.
	r := w.boot(t, n, 2, func(m *rig.Machine) {
		uefi("IPv4Support,string=n", "IPv6Support,string=n")(m)
		m.Extra = append(m.Extra, "-device", "qemu-xhci", "-drive", "if=none,id=stick,format=raw,readonly=on,file="+stick,
			"-device", "usb-storage,drive=stick,bootindex=0")
	})
	upTo(t, s, "n2", `dhcp\.ack node=n2 .*client="iPXE \(UEFI x64\)"`, `http\.done .*/vmlinuz`)
	await(t, r, 0, `NODE-UP name=n2`)
	if strings.Contains(s.Console.Text(), "UEFI x64 PXE") {
		t.Error("the firmware itself was on the network")
	}
}

func TestProxyLeavesAddressesToDnsmasq(t *testing.T) {
	w := alone(t)
	n := lan(t)
	other := network(t, "10.77.0.2/24")
	join(t, n, other)
	dnsmasq(t, other, "--interface="+other.Bridge, "--dhcp-authoritative", "--no-ping", "--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"),
		"--dhcp-range=10.77.0.0,static", "--dhcp-host=52:54:00:77:00:01,10.77.0.11")
	s := w.serve(t, n, "--dhcp", "proxy")
	w.boot(t, n, 1, nil)
	upTo(t, s, "n1", `dhcp\.offer node=n1 .*client="iPXE`, `http\.done .*/vmlinuz`)
	if strings.Contains(s.Console.Text(), "dhcp.ack") {
		t.Error("in proxy mode serve gave an address")
	}
}

// The machine's rack is a network of its own: its DHCP comes through dnsmasq's
// relay on the router, all else is routed.
func TestRelayCarriesARackBehindARouter(t *testing.T) {
	w := alone(t)
	n := lan(t)
	rack := network(t, "10.78.0.1/24")
	route(t, n, rack)
	dnsmasq(t, rack, "--dhcp-relay=10.78.0.1,10.77.0.1")
	s := w.serveImage(t, n, "e2e:routed")
	w.boot(t, rack, 1, nil)
	upTo(t, s, "n1", `dhcp\.ack node=n1 .*relay 10\.78\.0\.1`, `http\.done .*/vmlinuz`)
}

func TestFourMachinesBootAtOnce(t *testing.T) {
	w := need(t)
	n := lan(t)
	s := w.serve(t, n)
	for i := range 4 {
		w.boot(t, n, i+1, func(m *rig.Machine) { m.MemoryMB = 384 })
	}
	for i := range 4 {
		upTo(t, s, fmt.Sprintf("n%d", i+1))
	}
}

// join makes one network of two bridges.
func join(t *testing.T, a, b *rig.Net) {
	t.Helper()
	inside(t, a, "ip link add join type veth peer name join netns "+b.Name)
	for _, n := range []*rig.Net{a, b} {
		inside(t, n, "ip link set join master "+n.Bridge+" up")
	}
}

// route makes the second namespace a router between its bridge and the first's.
func route(t *testing.T, n, router *rig.Net) {
	t.Helper()
	inside(t, n, "ip link add join type veth peer name uplink netns "+router.Name)
	inside(t, n, "ip link set join master "+n.Bridge+" up")
	inside(t, n, "ip route add 10.78.0.0/24 via 10.77.0.3")
	inside(t, router, "ip addr add 10.77.0.3/24 dev uplink")
	inside(t, router, "ip link set uplink up")
	inside(t, router, "sysctl -q -w net.ipv4.ip_forward=1")
}

func inside(t *testing.T, n *rig.Net, command string) {
	t.Helper()
	if err := n.Run(t.Context(), strings.Fields(command)...); err != nil {
		t.Fatal(err)
	}
}

// dnsmasq runs Debian's dnsmasq in a namespace, without DNS.
func dnsmasq(t *testing.T, n *rig.Net, args ...string) {
	t.Helper()
	s, err := n.Start(context.WithoutCancel(t.Context()), nil, append([]string{
		"dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file", "--log-facility=-",
		"--log-dhcp",
	}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("dnsmasq's last words:\n%s", s.Console.Tail(4000))
		}
	})
	awaitIn(t, s.Console, 0, `started`)
}

package dhcp_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
)

// leaseScript writes what a client was given, as VARIABLE=value lines.
func leaseScript(t *testing.T) (script, result string) {
	t.Helper()
	dir := t.TempDir()
	script, result = filepath.Join(dir, "script"), filepath.Join(dir, "lease")
	text := "#!/bin/sh\ncase \"$1$reason\" in bound*|renew*|*BOUND|*RENEW|*REBOOT) env > " + result + ".new && mv " + result + ".new " + result + ";; esac\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, result
}

func expectLines(t *testing.T, file string, lines ...string) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range lines {
		if !strings.Contains("\n"+string(got), "\n"+want+"\n") {
			t.Errorf("the client was not given %q but:\n%s", want, got)
		}
	}
}

func TestBusyboxUdhcpcGetsItsLeaseAndRenewsIt(t *testing.T) {
	t.Parallel()
	needs(t, "busybox")
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	script, lease := leaseScript(t)
	l.background(l.command(m.name, "busybox", "udhcpc", "-f", "-i", m.dev, "-s", script, "-O", "rootpath", "-O", "mtu", "-O", "staticroutes"))
	ack := s.wait(boot.DHCPAck)
	if ack.Node != "suigintou" || ack.Client != "udhcpc" || ack.Addr.String() != "10.77.0.51" || ack.Digest != "sha256:1111" {
		t.Errorf("the event is %+v", ack)
	}
	waitFile(t, lease)
	expectLines(t, lease, "ip=10.77.0.51", "subnet=255.255.255.0", "router=10.77.0.254", "dns=10.77.0.253",
		"hostname=suigintou", "domain=cluster.example", "rootpath=10.77.0.1:/nodes/suigintou", "mtu=1500",
		"lease=3600", "serverid=10.77.0.1", "staticroutes=0.0.0.0/0 10.77.0.254")
}

func TestDhclientGetsItsLeaseAndReleasesIt(t *testing.T) {
	t.Parallel()
	needs(t, "dhclient")
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	script, lease := leaseScript(t)
	files := []string{"-sf", script, "-lf", lease + "s", "-pf", lease + ".pid", "-cf", "/dev/null", m.dev}
	out, err := l.command(m.name, "dhclient", append([]string{"-1", "-v"}, files...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dhclient: %v\n%s", err, out)
	}
	s.wait(boot.DHCPAck)
	expectLines(t, lease, "new_ip_address=10.77.0.51", "new_host_name=suigintou", "new_dhcp_server_identifier=10.77.0.1")
	l.ip(m.name, "addr add 10.77.0.51/24 dev "+m.dev)
	out, err = l.command(m.name, "dhclient", append([]string{"-r", "-v"}, files...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dhclient -r: %v\n%s", err, out)
	}
	if e := s.wait(boot.DHCPRelease); e.Node != "suigintou" {
		t.Errorf("the event is %+v", e)
	}
}

func TestIpconfigOfDebiansInitramfsGetsItsRootPath(t *testing.T) {
	t.Parallel()
	const ipconfig = "/usr/lib/klibc/bin/ipconfig"
	needs(t, ipconfig)
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	result := "/run/net-" + m.dev + ".conf"
	t.Cleanup(func() { _ = os.Remove(result) })
	out, err := l.command(m.name, ipconfig, "-t", "20", "-c", "dhcp", "-d", m.dev).CombinedOutput()
	if err != nil {
		t.Fatalf("ipconfig: %v\n%s", err, out)
	}
	if e := s.wait(boot.DHCPAck); e.Client != "Linux ipconfig" {
		t.Errorf("the event is %+v", e)
	}
	expectLines(t, result, "IPV4ADDR='10.77.0.51'", "HOSTNAME='suigintou'", "ROOTSERVER='10.77.0.1'", "ROOTPATH='10.77.0.1:/nodes/suigintou'")
}

func TestBootpOfIpconfigGetsAnAddressWithoutALease(t *testing.T) {
	t.Parallel()
	const ipconfig = "/usr/lib/klibc/bin/ipconfig"
	needs(t, ipconfig)
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}})
	m := l.machine("52:54:00:77:00:01")
	result := "/run/net-" + m.dev + ".conf"
	t.Cleanup(func() { _ = os.Remove(result) })
	out, err := l.command(m.name, ipconfig, "-t", "20", "-c", "bootp", "-d", m.dev).CombinedOutput()
	if err != nil {
		t.Fatalf("ipconfig: %v\n%s", err, out)
	}
	s.wait(boot.DHCPBootp)
	expectLines(t, result, "IPV4ADDR='10.77.0.51'", "ROOTPATH='10.77.0.1:/nodes/suigintou'")
}

package dhcp_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
)

// qemu starts a machine without a disk on the lab's bridge; its console goes to
// a file that a failed test shows.
func (l *lab) qemu(mac string, args ...string) {
	l.t.Helper()
	needs(l.t, "qemu-system-x86_64")
	l.n++
	tap := fmt.Sprintf("tap%d", l.n)
	l.ip(l.ns, "tuntap add mode tap name "+tap)
	l.ip(l.ns, "link set "+tap+" master br0 up")
	console := filepath.Join(l.t.TempDir(), "console")
	all := append([]string{
		"-accel", "tcg,tb-size=64", "-cpu", "Nehalem", "-smp", "1", "-m", "256", "-display", "none", "-monitor", "none",
		"-serial", "file:" + console, "-no-reboot", "-netdev", "tap,id=n0,script=no,downscript=no,ifname=" + tap,
	}, args...)
	for i, a := range all {
		if a == "NIC" {
			all[i] = "virtio-net-pci,netdev=n0,mac=" + mac
		}
		if a == "BARE-NIC" { // without iPXE's driver in the card's ROM
			all[i] = "virtio-net-pci,netdev=n0,romfile=,mac=" + mac
		}
	}
	l.background(l.command(l.ns, "qemu-system-x86_64", all...))
	l.t.Cleanup(func() {
		if text, err := os.ReadFile(console); err == nil && l.t.Failed() {
			l.t.Logf("console:\n%q", text)
		}
	})
}

func (l *lab) bios(mac string) {
	l.qemu(mac, "-machine", "pc,graphics=off", "-boot", "n", "-device", "NIC")
}

// uefi starts OVMF. fwcfg are its settings: it tries PXE before HTTP.
func (l *lab) uefi(mac string, fwcfg ...string) {
	l.t.Helper()
	const code, vars = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
	if _, err := os.Stat(code); err != nil {
		l.t.Skip("skipped: ovmf is not installed")
	}
	own := filepath.Join(l.t.TempDir(), "vars")
	run(l.t, "cp", vars, own)
	args := []string{
		"-machine", "q35", "-device", "BARE-NIC", "-device", "virtio-rng-pci",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + code, "-drive", "if=pflash,format=raw,file=" + own,
	}
	for _, s := range fwcfg {
		args = append(args, "-fw_cfg", s)
	}
	l.qemu(mac, args...)
}

// tftp serves a folder with dnsmasq, which answers no DHCP. Its log tells what
// was fetched.
func (l *lab) tftp(files map[string]string) *service {
	l.t.Helper()
	needs(l.t, "dnsmasq")
	dir := l.t.TempDir()
	for name, from := range files {
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			l.t.Fatal(err)
		}
		run(l.t, "cp", from, to)
	}
	run(l.t, "chmod", "-R", "a+rX", filepath.Dir(dir))
	s := &service{t: l.t, log: newLines()}
	s.cmd = l.command(l.ns, "dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--enable-tftp",
		"--tftp-root="+dir, "--user=root", "--pid-file", "--interface=br0", "--bind-interfaces", "--log-facility=-")
	s.cmd.Stderr = s.log
	l.background(s.cmd)
	return s
}

func TestIPXEOfABIOSMachineFetchesTheScript(t *testing.T) {
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
	l.bios("52:54:00:77:00:01")
	ack := s.wait(boot.DHCPAck)
	if ack.Client != "iPXE (BIOS)" || ack.File != "http://10.77.0.1/boot.ipxe" || ack.Addr.String() != "10.77.0.51" {
		t.Errorf("the event is %+v", ack)
	}
	if e := s.wait(boot.HTTPGet); e.File != "/boot.ipxe" {
		t.Errorf("it fetched %q", e.File)
	}
}

func TestAROMThatIsIPXEFetchesPxelinuxWhereTheRecipeNamesIt(t *testing.T) {
	l := newLab(t)
	m := linuxNode()
	m.Node.Boot.BIOS = "/pxelinux.0"
	s := l.serve(serverSpec{Machines: []dhcp.Machine{m}})
	files := l.tftp(map[string]string{"pxelinux.0": "/usr/lib/PXELINUX/pxelinux.0", "ldlinux.c32": "/usr/lib/syslinux/modules/bios/ldlinux.c32"})
	l.bios("52:54:00:77:00:01")
	if ack := s.wait(boot.DHCPAck); ack.Client != "iPXE (BIOS)" || ack.File != "/pxelinux.0" {
		t.Errorf("the event is %+v", ack)
	}
	// pxelinux runs, and knows its server, when it asks for its module.
	files.waitLog("/ldlinux.c32 to 10.77.0.51")
}

func TestUEFIFetchesIPXEAndIPXEFetchesTheScript(t *testing.T) {
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
	l.tftp(map[string]string{"usr/lib/ipxe/ipxe.efi": "/usr/lib/ipxe/ipxe.efi"})
	l.uefi("52:54:00:77:00:01")
	if ack := s.wait(boot.DHCPAck); ack.Client != "UEFI x64 PXE" || ack.File != "/usr/lib/ipxe/ipxe.efi" {
		t.Errorf("the event is %+v", ack)
	}
	if ack := s.wait(boot.DHCPAck); ack.Client != "iPXE (UEFI x64)" {
		t.Errorf("the event is %+v", ack)
	}
	if e := s.wait(boot.HTTPGet); e.File != "/boot.ipxe" {
		t.Errorf("it fetched %q", e.File)
	}
}

func TestUEFIBootsOverHTTP(t *testing.T) {
	l := newLab(t)
	s := l.serve(serverSpec{Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
	l.uefi("52:54:00:77:00:01", "name=opt/org.tianocore/IPv4PXESupport,string=n", "name=opt/org.tianocore/IPv6PXESupport,string=n")
	if ack := s.wait(boot.DHCPAck); ack.Client != "UEFI x64 HTTP boot" || ack.File != "http://10.77.0.1/files/usr/lib/ipxe/ipxe.efi" {
		t.Errorf("the event is %+v", ack)
	}
	if e := s.wait(boot.HTTPGet); e.File != "/files/usr/lib/ipxe/ipxe.efi" {
		t.Errorf("it fetched %q", e.File)
	}
}

// dnsmasqDHCP is another server on the bridge, in a namespace of its own.
func (l *lab) dnsmasqDHCP(args ...string) *machine {
	l.t.Helper()
	needs(l.t, "dnsmasq")
	m := l.machine("52:54:00:77:00:fe")
	l.ip(m.name, "addr add 10.77.0.2/24 dev "+m.dev)
	l.background(l.command(m.name, "dnsmasq", append([]string{
		"--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file", "--interface=" + m.dev, "--bind-interfaces",
		"--dhcp-authoritative", "--no-ping", "--dhcp-leasefile=" + filepath.Join(l.t.TempDir(), "leases"), "--dhcp-range=10.77.0.100,10.77.0.200,1h",
	}, args...)...))
	return m
}

func TestProxyNamesTheBootProgramBesideDnsmasq(t *testing.T) {
	proxy := dhcp.Config{Mode: dhcp.ModeProxy}
	t.Run("to iPXE of a BIOS machine", func(t *testing.T) {
		l := newLab(t)
		s := l.serve(serverSpec{Config: proxy, Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
		l.dnsmasqDHCP()
		l.bios("52:54:00:77:00:01")
		if e := s.wait(boot.HTTPGet); e.File != "/boot.ipxe" {
			t.Errorf("it fetched %q", e.File)
		}
	})
	t.Run("to UEFI on port 4011", func(t *testing.T) {
		l := newLab(t)
		s := l.serve(serverSpec{Config: proxy, Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
		l.dnsmasqDHCP()
		l.tftp(map[string]string{"usr/lib/ipxe/ipxe.efi": "/usr/lib/ipxe/ipxe.efi"})
		l.uefi("52:54:00:77:00:01")
		if ack := s.wait(boot.DHCPAck); ack.Client != "UEFI x64 PXE" || ack.File != "/usr/lib/ipxe/ipxe.efi" {
			t.Errorf("the event is %+v", ack)
		}
		if e := s.wait(boot.HTTPGet); e.File != "/boot.ipxe" {
			t.Errorf("it fetched %q", e.File)
		}
	})
	t.Run("to UEFI over HTTP", func(t *testing.T) {
		l := newLab(t)
		s := l.serve(serverSpec{Config: proxy, Machines: []dhcp.Machine{linuxNode()}, HTTP: true})
		l.dnsmasqDHCP()
		l.uefi("52:54:00:77:00:01", "name=opt/org.tianocore/IPv4PXESupport,string=n", "name=opt/org.tianocore/IPv6PXESupport,string=n")
		if e := s.wait(boot.HTTPGet); e.File != "/files/usr/lib/ipxe/ipxe.efi" {
			t.Errorf("it fetched %q", e.File)
		}
	})
}

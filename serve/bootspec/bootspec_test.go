package bootspec

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
)

var update = flag.Bool("update", os.Getenv("RHIZOME_UPDATE_GOLDEN") != "", "write the golden files anew")

type mapTree map[string]string

func (t mapTree) Open(p string) (File, error) {
	s, ok := t[p]
	if !ok {
		return File{}, fs.ErrNotExist
	}
	return File{ReaderAt: bytes.NewReader([]byte(s)), Size: int64(len(s))}, nil
}

func linuxNode() Machine {
	return Machine{
		Cluster: imagefmt.Cluster{Name: "demo", Network: imagefmt.Network{Server: netip.MustParseAddr("10.77.0.1")}},
		Node: imagefmt.Node{
			Name: "node7", MACs: []string{"52:54:00:77:00:07"}, Address: netip.MustParseAddr("10.77.0.17"),
			Boot: imagefmt.Boot{
				OS: "linux", Kernel: "/boot/vmlinuz", Initrd: "/boot/initrd.img", BIOS: "/usr/lib/PXELINUX/pxelinux.0",
				Files:   []string{"/usr/lib/syslinux/modules/bios/ldlinux.c32"},
				Cmdline: "root=/dev/nfs nfsroot={server}:/nodes/{name} ip={address} rhizome={digest} console=ttyS0",
			},
		},
		Digest: "sha256:abc",
		Tree: mapTree{
			"/boot/vmlinuz": "kernel", "/boot/initrd.img": "initrd", "/etc/shadow": "secret",
			"/usr/lib/PXELINUX/pxelinux.0": "pxelinux", "/usr/lib/syslinux/modules/bios/ldlinux.c32": "ldlinux",
		},
	}
}

func freebsdNode() Machine {
	m := linuxNode()
	m.Node.Name = "suigintou"
	m.Node.Boot = imagefmt.Boot{OS: "freebsd", BIOS: "/boot/pxeboot", UEFI: "/boot/loader.efi"}
	m.Tree = mapTree{"/boot/pxeboot": "pxeboot", "/boot/loader.efi": "loader"}
	return m
}

func TestNamesAsFirmwareManglesThem(t *testing.T) {
	for name, want := range map[string]string{
		"/boot/vmlinuz":                           "/boot/vmlinuz",
		"boot/vmlinuz":                            "/boot/vmlinuz",
		"//boot//vmlinuz":                         "/boot/vmlinuz",
		`\boot\vmlinuz`:                           "/boot/vmlinuz",
		`C:\boot\vmlinuz`:                         "/boot/vmlinuz",
		"vmlinuz":                                 "/boot/vmlinuz",
		"vmlinuz\xff":                             "/boot/vmlinuz",
		"/tftpboot/boot/vmlinuz":                  "/boot/vmlinuz",
		"/diskless/tftp/pxelinux.0":               "/usr/lib/PXELINUX/pxelinux.0",
		"/diskless/tftp/boot/initrd.img":          "/boot/initrd.img",
		"/usr/lib/PXELINUX//boot/vmlinuz":         "/boot/vmlinuz",
		"::/boot/vmlinuz":                         "/boot/vmlinuz",
		"/nodes/node7/boot/vmlinuz":               "/boot/vmlinuz",
		"tftp://10.77.0.1/boot/vmlinuz":           "/boot/vmlinuz",
		"/BOOT/VMLINUZ":                           "/boot/vmlinuz",
		"/usr/lib/PXELINUX/ldlinux.c32":           "/usr/lib/syslinux/modules/bios/ldlinux.c32",
		"/boot/../boot/./vmlinuz":                 "/boot/vmlinuz",
		"../../../../boot/vmlinuz":                "/boot/vmlinuz",
		"/boot.ipxe":                              "text",
		"autoexec.ipxe":                           "text",
		"node7.ipxe":                              "text",
		"pxelinux.cfg/default":                    "text",
		"pxelinux.cfg/01-52-54-00-77-00-07":       "text",
		"/usr/lib/PXELINUX/pxelinux.cfg/0A4D0011": "text",
	} {
		d := Decide(linuxNode(), name)
		got := d.Path
		if d.Text != nil {
			got = "text"
		}
		if got != want {
			t.Errorf("%q means %q, want %q (%s)", name, got, want, d.Reason)
		}
	}
}

func TestWhatTheBootSpecDoesNotNameIsNotGivenOut(t *testing.T) {
	for _, name := range []string{
		"", "/", ".", "\x00", "/etc/shadow", "etc/shadow", "../etc/shadow", `..\..\etc\shadow`, "/boot/../etc/shadow",
		"/boot", "/boot/", "/tftpboot/../etc/shadow", "/nodes/node8/etc/shadow", "/xboot/vmlinux", "node8.ipxe",
		"pxelinux.cfg/01-52-54-00-77-00-08", "pxelinux.cfg/0A4D001", "pxelinux.cfg/0A4D0012", "a\nb", strings.Repeat("a", 5000),
		"vmlinuz/../../etc/shadow", "boot/vmlinuz/../../etc/shadow",
	} {
		_, err := Open(linuxNode(), name)
		var missing *NotFound
		if !errors.As(err, &missing) {
			t.Errorf("%q: got %v, want a refusal", name, err)
		}
	}
}

func TestARefusalNamesWhatIsNear(t *testing.T) {
	_, err := Open(linuxNode(), "/boot/vmlinux")
	var missing *NotFound
	if !errors.As(err, &missing) || len(missing.Nearest) == 0 || missing.Nearest[0] != "/boot/vmlinuz" {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), `node "node7"`) {
		t.Errorf("the sentence does not name the node: %v", err)
	}
}

func TestAFileTheImageLacksIsSaidToBeMissingFromTheImage(t *testing.T) {
	m := linuxNode()
	delete(m.Tree.(mapTree), "/boot/initrd.img")
	_, err := Open(m, "/boot/initrd.img")
	if err == nil || !strings.Contains(err.Error(), "does not hold") {
		t.Fatalf("got %v", err)
	}
}

func TestOfTwoPathsThatFitTheLongerIsMeant(t *testing.T) {
	m := linuxNode()
	m.Node.Boot.Files = append(m.Node.Boot.Files, "/vmlinuz")
	for name, want := range map[string]string{
		"/boot/vmlinuz": "/boot/vmlinuz", "/vmlinuz": "/vmlinuz", "/tftpboot/boot/vmlinuz": "/boot/vmlinuz", "/tftpboot/vmlinuz": "/vmlinuz", "/aboot/vmlinuz": "/vmlinuz",
	} {
		if d := Decide(m, name); d.Path != want {
			t.Errorf("%q means %q, want %q", name, d.Path, want)
		}
	}
}

func TestTwoFilesOfOneBaseNameNeedTheirPath(t *testing.T) {
	m := freebsdNode()
	m.Node.Boot.Files = []string{"/efi/loader.efi"}
	if d := Decide(m, "loader.efi"); d.Path != "" {
		t.Errorf("an ambiguous name gave %q", d.Path)
	}
	if d := Decide(m, "boot/loader.efi"); d.Path != "/boot/loader.efi" {
		t.Errorf("the full path gave %q", d.Path)
	}
}

func TestGeneratedScripts(t *testing.T) {
	silent := linuxNode()
	silent.Node.Boot = imagefmt.Boot{}
	bootif := linuxNode()
	bootif.Node.Boot.Cmdline = "BOOTIF=01-00 quiet\nforged"
	bootif.Node.Boot.Initrd = ""
	bootif.HTTP = "http://10.77.0.1:8080"
	for name, text := range map[string][]byte{
		"linux.ipxe": IPXE(linuxNode()), "freebsd.ipxe": IPXE(freebsdNode()), "nothing.ipxe": IPXE(silent),
		"own-bootif.ipxe": IPXE(bootif), "linux.pxelinux": PXELinux(linuxNode()), "own-bootif.pxelinux": PXELinux(bootif),
	} {
		golden(t, name, text)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", file, got, want)
	}
}

// The law: whatever is asked, a path that is given is one of the boot spec's,
// and asking for the path itself gives it again.
func FuzzNoNameLeavesTheBootSpec(f *testing.F) {
	for _, s := range []string{"/boot/vmlinuz", `C:\boot\..\etc\shadow`, "tftp://x/../etc/shadow", "/tftpboot//node7.ipxe", "vmlinuz\xff\xff"} {
		f.Add(s)
	}
	m := linuxNode()
	allowed := Allowed(m.Node.Boot)
	f.Fuzz(func(t *testing.T, name string) {
		if p := Clean(name); p != "" && (!path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, "\x00\\\n")) {
			t.Fatalf("%q was cleaned to %q", name, p)
		}
		d := Decide(m, name)
		if d.Path != "" && !slices.Contains(allowed, d.Path) {
			t.Fatalf("%q leads to %q, which the boot spec does not name", name, d.Path)
		}
		if d.Path != "" && Decide(m, d.Path).Path != d.Path {
			t.Fatalf("%q is not its own answer", d.Path)
		}
		if len(d.Nearest) > 3 || (d.Path == "" && d.Text == nil && d.Reason == "") {
			t.Fatalf("%q: %+v is no decision", name, d)
		}
	})
}

func TestStrangersMakeFewEvents(t *testing.T) {
	var v Valve
	through := 0
	for i := range 1000 {
		if v.Open(time.Unix(int64(i/500), 0)) {
			through++
		}
	}
	if through != 2*StrangersPerSecond {
		t.Errorf("%d events went through", through)
	}
}

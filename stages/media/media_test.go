package media

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/tool"
)

func packageWith(t *testing.T, paths ...string) *tree.Tree {
	t.Helper()
	p := tree.New()
	for _, path := range paths {
		if err := p.Add(tree.Entry{Path: path, Kind: tree.File, Body: tree.Text(path)}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestEachFirmwareGetsTheFirstProgramForIt(t *testing.T) {
	all := map[string]*tree.Tree{
		"ipxe":            packageWith(t, "usr/lib/ipxe/undionly.kpxe", "usr/lib/ipxe/snponly.efi", "boot/ipxe.efi"),
		"pxelinux":        packageWith(t, "usr/lib/PXELINUX/pxelinux.0"),
		"syslinux-common": packageWith(t, "usr/lib/syslinux/modules/bios/ldlinux.c32"),
	}
	for name, c := range map[string]struct {
		media recipes.Media
		want  map[string]string
	}{
		"ipxe": {recipes.Media{IPXE: true}, map[string]string{"boot.bios": "/boot/rhizome/undionly.kpxe",
			"boot.uefi": "/boot/rhizome/snponly.efi", "boot.files": "/boot/rhizome/ipxe.efi"}},
		"pxelinux": {recipes.Media{PXELinux: true}, map[string]string{"boot.bios": "/boot/rhizome/pxelinux.0", "boot.files": "/boot/rhizome/ldlinux.c32"}},
		"both": {recipes.Media{IPXE: true, PXELinux: true}, map[string]string{"boot.bios": "/boot/rhizome/undionly.kpxe",
			"boot.uefi": "/boot/rhizome/snponly.efi", "boot.files": "/boot/rhizome/ipxe.efi\n/boot/rhizome/pxelinux.0\n/boot/rhizome/ldlinux.c32"}},
	} {
		got, facts, err := collect(programs(c.media), all)
		if err != nil || !maps.Equal(facts, c.want) {
			t.Errorf("%s: got %v, %v; want %v", name, facts, err, c.want)
			continue
		}
		for _, paths := range facts {
			for _, p := range strings.Split(paths, "\n") {
				if got.Lookup(p) == nil {
					t.Errorf("%s: the tree has no %s", name, p)
				}
			}
		}
	}
}

func TestAMissingProgramIsNamed(t *testing.T) {
	_, _, err := collect(pxelinux(), map[string]*tree.Tree{"pxelinux": packageWith(t, "usr/lib/other")})
	if err == nil || !strings.Contains(err.Error(), `the package "pxelinux" of this suite has no file "/usr/lib/PXELINUX/pxelinux.0"`) {
		t.Errorf("got %v", err)
	}
}

func TestTheRequestNamesEachPackageOnce(t *testing.T) {
	r := Request("bookworm", []string{"main"}, "amd64", recipes.Media{IPXE: true, PXELinux: true})
	if want := []string{"ipxe", "pxelinux", "syslinux-common"}; !slices.Equal(r.Packages, want) || !r.Alone {
		t.Errorf("got %v, alone %v", r.Packages, r.Alone)
	}
}

func TestDebiansPackagesHoldThePrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: fetches packages")
	}
	if _, err := tool.Find("dpkg-deb", "dpkg"); err != nil {
		t.Skipf("skipped: %v", err)
	}
	sys, err := aptlock.ReadSystem(t.Context())
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	env := debian.Env{Work: t.TempDir(), Apt: &aptlock.Apt{Cache: filepath.Join(cache, "rhizome"), System: sys}}
	m := recipes.Media{IPXE: true, PXELinux: true}
	req := Request("bookworm", []string{"main"}, "amd64", m)
	set, err := env.Apt.Resolve(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := Build(t.Context(), env, Spec{Media: m, Request: req, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	for path, least := range map[string]int64{"undionly.kpxe": 50 << 10, "snponly.efi": 100 << 10, "pxelinux.0": 20 << 10, "ldlinux.c32": 50 << 10} {
		if e := got.Lookup(Dir + "/" + path); e == nil || e.Size() < least {
			t.Errorf("%s is missing or smaller than %d bytes", path, least)
		}
	}
}

package oci_test

import (
	"maps"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/oci"
)

func TestATagMeansWhatTheLockFileSays(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	lock := &recipes.Lock{Images: map[string]string{"registry.example/base:12": digest}}
	for ref, want := range map[string]string{
		"registry.example/base:12":              "registry.example/base:12@" + digest,
		"registry.example/base@" + digest:       "registry.example/base@" + digest,
		"registry.example/base:other@" + digest: "registry.example/base:other@" + digest,
	} {
		if got, err := oci.Pinned(ref, lock); got != want || err != nil {
			t.Errorf("%s: got %q, %v", ref, got, err)
		}
	}
	for _, lock := range []*recipes.Lock{nil, lock} {
		if _, err := oci.Pinned("registry.example/base:13", lock); err == nil || !strings.Contains(err.Error(), `run "rhizome lock"`) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWhatAnImageBringsToBootFromIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		system string
		paths  []string
		want   map[string]string
	}{
		"FreeBSD": {"freebsd", []string{"boot/kernel/kernel", "boot/pxeboot", "boot/loader.efi"},
			map[string]string{"kernel.path": "/boot/kernel/kernel", "boot.bios": "/boot/pxeboot", "boot.uefi": "/boot/loader.efi"}},
		"one kernel": {"linux", []string{"boot/vmlinuz-6.1", "boot/initrd.img-6.1"},
			map[string]string{"kernel.path": "/boot/vmlinuz-6.1", "initrd.path": "/boot/initrd.img-6.1", "kernel.version": "6.1"}},
		"two kernels":     {"linux", []string{"boot/vmlinuz-6.1", "boot/vmlinuz-6.2"}, map[string]string{}},
		"a dead link":     {"linux", []string{"boot/vmlinuz -> vmlinuz-6.1"}, map[string]string{}},
		"a link":          {"linux", []string{"boot/vmlinuz -> vmlinuz-a", "boot/vmlinuz-a", "boot/vmlinuz-b"}, map[string]string{"kernel.path": "/boot/vmlinuz"}},
		"only a userland": {"freebsd", []string{"bin/sh"}, map[string]string{}},
	} {
		tr := tree.New()
		for _, p := range c.paths {
			e := tree.Entry{Path: p, Kind: tree.File}
			if at, target, ok := strings.Cut(p, " -> "); ok {
				e = tree.Entry{Path: at, Kind: tree.Symlink, Target: target}
			}
			if err := tr.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if got := oci.Facts(tr, c.system); !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

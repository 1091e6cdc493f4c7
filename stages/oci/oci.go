// Package oci decides what a base image of somebody else's is: which digest a
// recipe means by it, and which of its files a node boots from. Bringing it in
// is the caller's part.
package oci

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// Version is raised whenever this package makes something else of an image.
const Version = 1

// Pinned is a reference with its digest, out of the recipe itself or out of
// the lock file, which may be nil.
func Pinned(ref string, lock *recipes.Lock) (string, error) {
	if Digest(ref) != "" {
		return ref, nil
	}
	if lock != nil && lock.Images[ref] != "" {
		return ref + "@" + lock.Images[ref], nil
	}
	return "", fmt.Errorf("the image %q is named by a tag, which may mean another image tomorrow, and the lock file does not say which: run \"rhizome lock\", or name it by its digest (NAME@sha256:HEX)", ref)
}

// Digest is the digest of a reference; "" where it has none.
func Digest(ref string) string {
	_, d, _ := strings.Cut(ref, "@")
	return d
}

// Facts are what a boot needs and the image brings: kernel, initramfs and boot
// programs, by the names under which pipeline knows them.
func Facts(t *tree.Tree, system string) map[string]string {
	facts := map[string]string{}
	for name, p := range candidates[system] {
		if found := firstFile(t, p); found != "" {
			facts[name] = "/" + found
		}
	}
	if system != "linux" {
		return facts
	}
	if v := onlyVersion(t); v != "" {
		setDefault(facts, "kernel.path", "/boot/vmlinuz-"+v)
		setDefault(facts, "kernel.version", v)
		if t.Lookup("boot/initrd.img-"+v) != nil {
			setDefault(facts, "initrd.path", "/boot/initrd.img-"+v)
		}
	}
	return facts
}

// candidates are where systems keep what they boot from (hier(7); Debian's
// linux-image and rhizome's own media stage).
var candidates = map[string]map[string][]string{
	"freebsd": {
		"kernel.path": {"boot/kernel/kernel"}, "boot.bios": {"boot/pxeboot"}, "boot.uefi": {"boot/loader.efi"},
	},
	"linux": {
		"kernel.path": {"boot/vmlinuz", "vmlinuz"}, "initrd.path": {"boot/initrd.img", "initrd.img"},
	},
}

func firstFile(t *tree.Tree, paths []string) string {
	for _, p := range paths {
		if e := t.Lookup(p); e != nil && resolves(t, e) {
			return p
		}
	}
	return ""
}

// resolves says whether a path is a file or a link straight to one: Debian's
// images keep links to kernels that they leave out.
func resolves(t *tree.Tree, e *tree.Entry) bool {
	if e.Kind != tree.Symlink {
		return e.Kind == tree.File
	}
	target := e.Target
	if !path.IsAbs(target) {
		target = path.Join("/", path.Dir(e.Path), target)
	}
	to := t.Lookup(target)
	return to != nil && to.Kind == tree.File
}

// onlyVersion is the version of the one kernel in /boot; "" where there are
// none or several.
func onlyVersion(t *tree.Tree) string {
	var versions []string
	for _, e := range t.Entries() {
		if v, ok := strings.CutPrefix(e.Path, "boot/vmlinuz-"); ok && e.Kind == tree.File {
			versions = append(versions, v)
		}
	}
	if versions = slices.Compact(versions); len(versions) == 1 {
		return versions[0]
	}
	return ""
}

func setDefault(m map[string]string, k, v string) {
	if m[k] == "" {
		m[k] = v
	}
}

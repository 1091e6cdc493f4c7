// Package debiankernel makes a layer of a Debian kernel, its modules and an
// initramfs that mounts a root over NFS through any common network card.
//
// The kernel is installed in a root of its own, from a package set of its own,
// so that a new kernel leaves the base layer alone.
package debiankernel

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
)

// helpers are what makes and fills the initramfs, beside the kernel: udev
// comes with initramfs-tools, nfsmount and ipconfig with klibc-utils, busybox
// is the rescue shell's.
var helpers = []string{"initramfs-tools", "klibc-utils", "kmod", "busybox", "zstd"}

// Request is what the step asks of the archive. Without names it is Debian's
// default kernel for the architecture.
func Request(suite string, components []string, arch string, packages []string) aptlock.Request {
	if len(packages) == 0 {
		packages = []string{"linux-image-" + arch}
	}
	return aptlock.Request{Suite: suite, Components: components, Arch: arch, Variant: "essential",
		Packages: append(slices.Clone(packages), helpers...)}
}

// Spec is a kernel to be made.
type Spec struct {
	Request aptlock.Request
	Set     recipes.PackageSet
	Epoch   time.Time
	// Modules go into the initramfs beside Drivers. A name that the kernel
	// does not have is an error; one of Drivers is not.
	Modules []string
}

// Kernel is what was made. Paths are absolute in the node's root.
type Kernel struct {
	Tree    *tree.Tree
	Version string
	// Path is the kernel's, Initrd the initramfs's.
	Path, Initrd string
}

// Build makes the kernel's layer.
func Build(ctx context.Context, env debian.Env, s Spec) (Kernel, error) {
	if err := checkNames(s.Modules); err != nil {
		return Kernel{}, err
	}
	hook, err := writeScript(env.Work, s.Modules)
	if err != nil {
		return Kernel{}, err
	}
	// INITRD=No keeps the kernel's own hooks from making an initramfs, since
	// ours is made last and once (/etc/kernel/postinst.d/initramfs-tools).
	root, err := debian.Install(ctx, env, debian.Spec{Request: s.Request, Set: s.Set, Epoch: s.Epoch},
		[]string{hook}, []string{"INITRD=No"})
	if err != nil {
		return Kernel{}, err
	}
	if err := debian.CheckInstalled(root, s.Set); err != nil {
		return Kernel{}, err
	}
	return Take(root)
}

// Take picks the kernel out of the root it was installed in.
func Take(root *tree.Tree) (Kernel, error) {
	var versions []string
	for _, e := range root.Entries() {
		if v, ok := strings.CutPrefix(e.Path, "boot/vmlinuz-"); ok && e.Kind == tree.File {
			versions = append(versions, v)
		}
	}
	if len(versions) != 1 {
		return Kernel{}, fmt.Errorf("the packages bring %d kernels (%s); a layer holds one: name one package that brings a kernel", len(versions), strings.Join(versions, ", "))
	}
	k := Kernel{Tree: tree.New(), Version: versions[0], Path: "/boot/vmlinuz-" + versions[0], Initrd: "/boot/initrd.img-" + versions[0]}
	if root.Lookup(k.Initrd) == nil {
		return Kernel{}, fmt.Errorf("no initramfs %q was made", k.Initrd)
	}
	for _, e := range root.Entries() {
		if !wanted(e.Path, k.Version) {
			continue
		}
		if err := k.Tree.Add(*e); err != nil {
			return Kernel{}, err
		}
	}
	return k, k.links()
}

// wanted says whether a path belongs into the kernel's layer. The root is
// merged, so modules lie under usr/lib.
func wanted(p, version string) bool {
	dir, name := path.Split(p)
	if dir == "boot/" {
		return slices.Contains([]string{"vmlinuz-", "initrd.img-", "System.map-", "config-"}, strings.TrimSuffix(name, version))
	}
	modules := "usr/lib/modules/" + version
	return p == modules || strings.HasPrefix(p, modules+"/")
}

// links give the kernel the names that do not change with its version.
func (k Kernel) links() error {
	for name, target := range map[string]string{"boot/vmlinuz": k.Path, "boot/initrd.img": k.Initrd} {
		if err := k.Tree.Add(tree.Entry{Path: name, Kind: tree.Symlink, Mode: 0o777, Target: path.Base(target)}); err != nil {
			return err
		}
	}
	return nil
}

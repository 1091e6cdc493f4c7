// Package media takes boot programs out of Debian's packages: iPXE and
// pxelinux, for firmware that needs a program before it can fetch a kernel.
// The packages are unpacked, never installed.
package media

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/tool"
)

// Dir is where boot programs lie in a node's root.
const Dir = "boot/rhizome"

// program is one file of a package, and what it is for.
type program struct {
	pkg, path string
	// fact is the key under which the assembly finds it; "boot.files" is for
	// what goes along with another one.
	fact string
	// optional programs are left out where a suite's package lacks them.
	optional bool
}

// ipxe are Debian's builds that use the firmware's own network driver, and so
// work with every card that could boot: the one that brought them. "ipxe.efi",
// with drivers of its own, is there for firmware whose driver is broken.
func ipxe() []program {
	return []program{
		{pkg: "ipxe", path: "usr/lib/ipxe/undionly.kpxe", fact: "boot.bios"},
		{pkg: "ipxe", path: "usr/lib/ipxe/snponly.efi", fact: "boot.uefi"},
		{pkg: "ipxe", path: "boot/ipxe.efi", fact: "boot.files"},
		// Debian 13 and later.
		{pkg: "ipxe", path: "usr/lib/ipxe/arm64/snponly.efi", fact: "boot.uefi.arm64", optional: true},
	}
}

// pxelinux needs its loader module beside it.
func pxelinux() []program {
	return []program{
		{pkg: "pxelinux", path: "usr/lib/PXELINUX/pxelinux.0", fact: "boot.bios"},
		{pkg: "syslinux-common", path: "usr/lib/syslinux/modules/bios/ldlinux.c32", fact: "boot.files"},
	}
}

// Spec is what the recipe asks for.
type Spec struct {
	Media   recipes.Media
	Request aptlock.Request
	Set     recipes.PackageSet
}

func programs(m recipes.Media) []program {
	var all []program
	if m.IPXE {
		all = append(all, ipxe()...)
	}
	if m.PXELinux {
		all = append(all, pxelinux()...)
	}
	return all
}

// Request is what the step asks of the archive: the packages alone, without
// what they depend on.
func Request(suite string, components []string, arch string, m recipes.Media) aptlock.Request {
	var names []string
	for _, p := range programs(m) {
		if !slices.Contains(names, p.pkg) {
			names = append(names, p.pkg)
		}
	}
	return aptlock.Request{Suite: suite, Components: components, Arch: arch, Packages: names, Alone: true}
}

// Build lays the programs under Dir and says what each is for.
func Build(ctx context.Context, env debian.Env, s Spec) (*tree.Tree, map[string]string, error) {
	if len(programs(s.Media)) == 0 {
		return nil, nil, fmt.Errorf("the media stage asks for no boot program; set ipxe or pxelinux to true")
	}
	files, err := env.Apt.Fetch(ctx, s.Request, s.Set)
	if err != nil {
		return nil, nil, err
	}
	unpacked := map[string]*tree.Tree{}
	for i, p := range s.Set.Packages {
		if unpacked[p.Name], err = unpack(ctx, env, p.Name, files[i]); err != nil {
			return nil, nil, err
		}
	}
	return collect(programs(s.Media), unpacked)
}

// unpack reads a package's files, which stay in a tar in the work folder.
func unpack(ctx context.Context, env debian.Env, name, deb string) (*tree.Tree, error) {
	bin, err := tool.Find("dpkg-deb", "dpkg")
	if err != nil {
		return nil, err
	}
	out, err := os.Create(filepath.Join(env.Work, name+".tar"))
	if err != nil {
		return nil, fmt.Errorf("unpacking %q: %w", name, err)
	}
	defer out.Close()
	c := tool.Command{Doing: fmt.Sprintf("unpacking %q", name), Args: []string{bin, "--fsys-tarfile", deb}, Stdout: out, LogFile: env.LogFile, Line: env.Line}
	if err := c.Run(ctx); err != nil {
		return nil, err
	}
	return tree.FromTar(out.Name())
}

// collect picks the programs. The first program for a firmware is the one it
// is given; all others may be fetched too.
func collect(want []program, unpacked map[string]*tree.Tree) (*tree.Tree, map[string]string, error) {
	t, facts := tree.New(), map[string]string{}
	var others []string
	for _, p := range want {
		var e *tree.Entry
		if from := unpacked[p.pkg]; from != nil {
			e = from.Lookup(p.path)
		}
		if e == nil && p.optional {
			continue
		}
		if e == nil || e.Kind != tree.File {
			return nil, nil, fmt.Errorf("the package %q of this suite has no file %q; leave this boot program out, or name another suite", p.pkg, "/"+p.path)
		}
		at := Dir + "/" + filepath.Base(p.path)
		if p.fact == "boot.uefi.arm64" {
			at = Dir + "/arm64/" + filepath.Base(p.path)
		}
		if err := t.Add(tree.Entry{Path: at, Kind: tree.File, Mode: 0o644, Body: e.Body}); err != nil {
			return nil, nil, err
		}
		if facts[p.fact] != "" || p.fact == "boot.files" {
			others = append(others, "/"+at)
		} else {
			facts[p.fact] = "/" + at
		}
	}
	if len(others) > 0 {
		facts["boot.files"] = strings.Join(others, "\n")
	}
	return t, facts, nil
}

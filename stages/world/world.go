// Package world builds FreeBSD's userland: buildworld and installworld
// (build(7)), turned into one tree.
package world

import (
	"context"
	"fmt"
	"path/filepath"

	"rhizome/pipeline/tree"
	"rhizome/stages/freebsd"
)

// Version is raised whenever the same inputs would give another tree.
const Version = 1

// The boot programs in a world's tree, by firmware.
const (
	BIOS = "boot/pxeboot"
	UEFI = "boot/loader.efi"
)

// Inputs are all that a world depends on.
func Inputs(ctx context.Context, p *freebsd.Project) (map[string]string, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, err
	}
	return f.UserlandInputs(f.Content.WorldReads())
}

// Build makes the world in objects of its own below env.Work, so that a build
// that was stopped goes on where it was, and installs it.
func Build(ctx context.Context, env freebsd.Env, p *freebsd.Project) (*tree.Tree, error) {
	f, err := p.Look(ctx)
	if err != nil {
		return nil, err
	}
	b, err := p.Build(ctx, env, filepath.Join(env.Work, "obj"), f.SrcConf)
	if err != nil {
		return nil, err
	}
	if err := env.Runner().Run(ctx, "buildworld", b.Command("buildworld")); err != nil {
		return nil, err
	}
	destdir, metalog, err := b.Install(ctx, env, []string{"installworld"})
	if err != nil {
		return nil, err
	}
	ids, err := freebsd.ReadIDs(f.Source.Dir)
	if err != nil {
		return nil, err
	}
	t, err := freebsd.Installed(destdir, metalog, ids)
	if err != nil {
		return nil, err
	}
	return t, Whole(t, f.Source.Arch)
}

// Whole checks that what a diskless boot goes through is there: an option in
// "without" may have taken it away, and nothing would say so before a node
// hangs.
func Whole(t *tree.Tree, arch string) error {
	needs := []string{"sbin/init", "bin/sh", "libexec/ld-elf.so.1", "boot/lua/loader.lua", "boot/defaults/loader.conf", UEFI}
	if arch == "amd64" {
		needs = append(needs, BIOS)
	}
	for _, n := range needs {
		if e := t.Lookup(n); e == nil || e.Kind == tree.Dir {
			return fmt.Errorf("the world has no /%s, without which no node boots; take out of \"without\" what removes it (BOOT, EFI, LOADER_LUA, LOADER_PXEBOOT, ...)", n)
		}
	}
	return nil
}

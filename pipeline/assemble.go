package pipeline

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/pipeline/image"
	"rhizome/recipes"
	"rhizome/registry/imagefmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Facts that stages leave in Output.Facts for the boot spec. Paths are
// absolute in the node's merged root; lists have one element a line.
const (
	FactKernelPath    = "kernel.path"
	FactKernelVersion = "kernel.version"
	FactInitrdPath    = "initrd.path"
	FactCmdline       = "boot.cmdline"
	FactKenv          = "boot.kenv"
	FactBIOS          = "boot.bios"
	FactUEFI          = "boot.uefi"
	FactUEFIArm64     = "boot.uefi.arm64"
	FactFiles         = "boot.files"
)

// Assemble writes the cluster image of a finished plan and returns its index.
// Nothing names the index yet: tagging it is the one switch that publishes.
func Assemble(ctx context.Context, store Store, p *Plan) (ocispec.Descriptor, error) {
	r := p.Recipe
	cluster := imagefmt.Cluster{Name: r.Name, Network: network(r.Network)}
	shelf, err := newShelf(p)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var manifests []ocispec.Descriptor
	for i := range r.Nodes {
		d, err := assembleNode(ctx, store, p, shelf, cluster, &r.Nodes[i])
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("assembling node %q: %w", r.Nodes[i].Name, err)
		}
		manifests = append(manifests, d)
	}
	index, err := image.Index(manifests)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return index.Descriptor, put(ctx, store, index)
}

func assembleNode(ctx context.Context, store Store, p *Plan, shelf shelf, c imagefmt.Cluster, n *recipes.Node) (ocispec.Descriptor, error) {
	layers, facts, err := nodeLayers(p, shelf, n)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	platform := image.Platform{OS: p.Recipe.OS, Arch: p.Recipe.Arch}
	boot := bootNode(p.Recipe, n, facts)
	if n.Root == "precache" {
		boot.Bundle, boot.BundleFolders, boot.BundlePrivate = shelf.bundle, shelf.folders, shelf.private
	}
	node, err := image.ForNode(platform, p.Recipe.Epoch, c, boot, layers)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := put(ctx, store, node.Config); err != nil {
		return ocispec.Descriptor{}, err
	}
	return node.Manifest.Descriptor, put(ctx, store, node.Manifest)
}

func put(ctx context.Context, store Store, b image.Blob) error {
	_, err := store.Ingest(ctx, b.Descriptor.MediaType, func(w io.Writer) error {
		_, err := w.Write(b.Data)
		return err
	})
	return err
}

// nodeLayers picks the layers that make up one node's root, lowest first, and
// gathers the facts of the steps that made them; a later step's fact wins.
func nodeLayers(p *Plan, shelf shelf, n *recipes.Node) ([]image.Layer, map[string]string, error) {
	kernel, err := chooseKernel(p, n)
	if err != nil {
		return nil, nil, err
	}
	var layers []image.Layer
	facts := map[string]string{}
	for _, s := range p.Steps {
		if !applies(s.Info, n.Name, kernel) {
			continue
		}
		for k, v := range s.Result.Facts {
			facts[k] = v
		}
		for _, l := range shelf.of(s) {
			layers = append(layers, described(s, l))
		}
	}
	return layers, facts, nil
}

// applies says whether a step's layer belongs to a node.
func applies(info Info, node, kernel string) bool {
	if info.Nodes != nil && !slices.Contains(info.Nodes, node) {
		return false
	}
	return info.Kernel == "" || info.Kernel == kernel
}

// chooseKernel is the kernel the node names, or the only one there is.
func chooseKernel(p *Plan, n *recipes.Node) (string, error) {
	var names []string
	for _, s := range p.Steps {
		if s.Info.Kernel != "" {
			names = append(names, s.Info.Kernel)
		}
	}
	switch {
	case n.Kernel != "" && slices.Contains(names, n.Kernel):
		return n.Kernel, nil
	case n.Kernel != "":
		return "", fmt.Errorf("it names the kernel %q; the recipe builds %s", n.Kernel, strings.Join(names, ", "))
	case len(names) > 1:
		return "", fmt.Errorf("the recipe builds several kernels (%s); name the node's with \"kernel:\"", strings.Join(names, ", "))
	case len(names) == 1:
		return names[0], nil
	}
	return "", nil
}

// source is a recipe position without the folder, which differs between
// machines and would change the image's digest.
func source(p recipes.Pos) string {
	if p.Line == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d", filepath.Base(p.File), p.Line)
}

func network(n recipes.Network) imagefmt.Network {
	return imagefmt.Network{
		Subnet: n.Subnet, Server: n.Server, Gateway: n.Gateway, DNS: n.DNS, Domain: n.Domain,
		MTU: n.MTU, LeaseSeconds: int(n.Lease.Seconds()),
	}
}

// bootNode is what serve will know of a node.
func bootNode(r *recipes.Recipe, n *recipes.Node, facts map[string]string) imagefmt.Node {
	node := imagefmt.Node{
		Name: n.Name, MACs: n.MACs, Address: n.Address, Root: n.Root, Persist: n.Persist, Shared: n.Shared,
		PersistQuota: n.PersistQuota, PersistDevices: n.PersistDevices,
		Boot: imagefmt.Boot{
			OS: r.OS, Kernel: facts[FactKernelPath], Initrd: facts[FactInitrdPath], Cmdline: facts[FactCmdline],
			BIOS: facts[FactBIOS], UEFI: facts[FactUEFI], UEFIArm64: facts[FactUEFIArm64],
			Files: lines(facts[FactFiles]), Kenv: lines(facts[FactKenv]),
		},
	}
	if n.Etc == "persistent" {
		node.CopyOnWrite = []string{"/etc"}
	}
	for _, s := range n.Secrets {
		node.Secrets = append(node.Secrets, imagefmt.Secret{Kind: s.Kind, Path: s.Path, Mode: s.Mode, UID: s.UID, GID: s.GID})
	}
	return node
}

func lines(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' })
}

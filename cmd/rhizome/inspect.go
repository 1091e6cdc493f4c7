package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"rhizome/registry/imagefmt"
	"rhizome/registry/store"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// inspected is one image, whole.
type inspected struct {
	Digest    digest.Digest    `json:"digest"`
	MediaType string           `json:"mediaType"`
	Cluster   imagefmt.Cluster `json:"cluster"`
	Nodes     []inspectedNode  `json:"nodes"`
}

type inspectedNode struct {
	Manifest digest.Digest    `json:"manifest"`
	Platform string           `json:"platform"`
	Node     imagefmt.Node    `json:"node"`
	Layers   []inspectedLayer `json:"layers"`
}

type inspectedLayer struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffId"`
	Size   int64         `json:"size"`
	Role   string        `json:"role,omitempty"`
	Stage  string        `json:"stage,omitempty"`
	Source string        `json:"source,omitempty"`
	// ServedFrom is "blob", or "derived" where somebody else made the layer
	// and a seekable copy of it is read.
	ServedFrom string `json:"servedFrom"`
}

func (a *app) inspectCommand() *cobra.Command {
	return a.places(a.jsonFlag(&cobra.Command{
		Use:   "inspect REF",
		Short: "Show one image whole: nodes, boot specs, layers",
		Args:  withImages(exact(1, "one image"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openStore()
			if err != nil {
				return err
			}
			in, err := inspect(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			if a.json {
				enc := json.NewEncoder(a.out)
				enc.SetIndent("", "  ")
				return enc.Encode(in)
			}
			return printInspected(a.out, in)
		},
	}), offerImages)
}

func inspect(ctx context.Context, s *store.Store, text string) (*inspected, error) {
	index, err := resolve(ctx, s, text)
	if err != nil {
		return nil, err
	}
	nodes, err := s.Nodes(ctx, index)
	if err != nil {
		return nil, err
	}
	in := &inspected{Digest: index.Digest, MediaType: index.MediaType, Nodes: []inspectedNode{}}
	for _, n := range nodes {
		node, cluster, err := inspectNode(ctx, s, n.Descriptor)
		if err != nil {
			return nil, fmt.Errorf("inspecting node %q: %w", n.Node, err)
		}
		in.Cluster = cluster
		in.Nodes = append(in.Nodes, node)
	}
	return in, nil
}

func inspectNode(ctx context.Context, s *store.Store, d ocispec.Descriptor) (inspectedNode, imagefmt.Cluster, error) {
	m, config, err := s.ManifestConfig(ctx, d)
	if err != nil {
		return inspectedNode{}, imagefmt.Cluster{}, err
	}
	out := inspectedNode{Manifest: d.Digest, Platform: config.OS + "/" + config.Architecture, Layers: []inspectedLayer{}}
	var cluster imagefmt.Cluster
	if cluster, out.Node, err = imagefmt.Parse(config.Config.Labels); err != nil {
		return out, cluster, err
	}
	for i, l := range m.Layers {
		row := inspectedLayer{
			Digest: l.Digest, Size: l.Size, ServedFrom: "blob", Role: l.Annotations[imagefmt.AnnotationRole],
			Stage: l.Annotations[imagefmt.AnnotationStage], Source: l.Annotations[imagefmt.AnnotationSource],
		}
		if i < len(config.RootFS.DiffIDs) {
			row.DiffID = config.RootFS.DiffIDs[i]
		}
		if layer, err := s.Layer(ctx, l, row.DiffID); err != nil {
			return out, cluster, err
		} else if layer.Close(); layer.Derived {
			row.ServedFrom = "derived"
		}
		out.Layers = append(out.Layers, row)
	}
	return out, cluster, nil
}

func printInspected(w io.Writer, in *inspected) error {
	if len(in.Nodes) == 0 { // an image that others made, to build on
		_, err := fmt.Fprintf(w, "image    %s\nnodes    none: no cluster boots it\n", in.Digest)
		return err
	}
	net := in.Cluster.Network
	fmt.Fprintf(w, "index    %s\ncluster  %s\nnetwork  %s, served from %s\n", in.Digest, in.Cluster.Name, net.Subnet, net.Server)
	for _, n := range in.Nodes {
		fmt.Fprintf(w, "\nnode %s\n  manifest  %s\n  platform  %s\n  address   %s\n  cards     %s\n  root      %s\n",
			n.Node.Name, n.Manifest, n.Platform, n.Node.Address, joined(n.Node.MACs), n.Node.Root)
		printBoot(w, n.Node.Boot)
		for _, l := range n.Layers {
			fmt.Fprintf(w, "  layer     %s  %-8s %10s  %s  %s (%s)\n", short(l.Digest), l.Role, bytesText(l.Size), l.ServedFrom, l.Stage, l.Source)
		}
	}
	return nil
}

func printBoot(w io.Writer, b imagefmt.Boot) {
	for _, f := range []struct{ name, value string }{
		{"kernel", b.Kernel}, {"initrd", b.Initrd}, {"cmdline", b.Cmdline},
		{"bios", b.BIOS}, {"uefi", b.UEFI}, {"uefi arm64", b.UEFIArm64},
	} {
		if f.value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", f.name, f.value)
		}
	}
	for _, k := range b.Kenv {
		fmt.Fprintf(w, "  kenv      %s\n", k)
	}
}

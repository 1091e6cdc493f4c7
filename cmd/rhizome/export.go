package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"rhizome/cmd/rhizome/internal/export"
	"rhizome/cmd/rhizome/internal/stick"
	"rhizome/registry/durable"
	"rhizome/registry/layout"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/rootfs"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func (a *app) exportCommand() *cobra.Command {
	var format, output string
	cmd := &cobra.Command{
		Use:   "export REF NODE --format tar|dir|oci|usb --output FILE",
		Short: "Take a node's merged root out of its image, or make a boot stick",
		Long: `Take a node's merged root out of its image: as a tar, a folder, or an OCI
layout of this one node, whose manifest keeps its digest. Secrets are in no
image, and so in no export.

usb is a boot stick for machines whose firmware boots from no network: a disk
image with an EFI system partition, to be written to a stick as it is. It names
the server and no node, so one stick serves all nodes of the cluster.`,
		Args: withImages(exact(2, "an image and a node"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			write := exports[format]
			if write == nil {
				return usagef("--format is tar, dir, oci or usb, not %q", format)
			}
			if output == "" {
				return usagef("export needs --output: where to write, or - for a tar on stdout")
			}
			return a.export(cmd.Context(), args[0], args[1], format, output)
		},
	}
	cmd.Flags().StringVar(&format, "format", "tar", "tar, dir, oci or usb")
	_ = cmd.RegisterFlagCompletionFunc("format", oneOf("tar", "dir", "oci", "usb"))
	cmd.Flags().StringVarP(&output, "output", "o", "", "the file or folder to make; - is stdout, for a tar")
	takesFile(cmd, "output")
	return a.places(cmd, offerImages, offerNodes)
}

// exported is what an export is made of.
type exported struct {
	store    *store.Store
	manifest ocispec.Descriptor
	machine  *serve.Machine
}

// exports write to a path where nothing is yet.
var exports = map[string]func(ctx context.Context, e exported, to string) error{
	"tar": func(_ context.Context, e exported, to string) error { return exportTar(e.machine.View, to) },
	"dir": func(_ context.Context, e exported, to string) error { return export.Dir(to, e.machine.View) },
	"oci": exportLayout,
	"usb": func(_ context.Context, e exported, to string) error { return exportStick(e.machine, to) },
}

func (a *app) export(ctx context.Context, image, node, format, output string) error {
	return a.withNode(ctx, image, node, func(e exported) error {
		if output == "-" {
			if format != "tar" {
				return usagef("only a tar goes to stdout, not %s", format)
			}
			return export.Tar(a.out, e.machine.View)
		}
		if format == "tar" && isStream(output) {
			return exportStream(e.machine.View, output)
		}
		err := replace(format, output, func(to string) error { return exports[format](ctx, e, to) })
		if err != nil {
			return fmt.Errorf("exporting node %q as %s to %q: %w", node, format, output, err)
		}
		return nil
	})
}

// replace lets write fill a new name beside output, and renames that. A folder
// that is there already is left alone.
func replace(format, output string, write func(to string) error) error {
	info, err := os.Lstat(output)
	switch {
	case err == nil && (info.IsDir() || format == "dir" || format == "oci"):
		return errors.New("it is there already; remove it, or name another place")
	case err == nil && info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0:
		return errors.New("it is no file, and would be replaced by one; write a file, and copy that there")
	}
	dir, err := os.MkdirTemp(filepath.Dir(output), ".rhizome-export-")
	if err != nil {
		return fmt.Errorf("%w; name another place with --output", err)
	}
	defer os.RemoveAll(dir)
	temp := filepath.Join(dir, "new")
	if err := write(temp); err != nil {
		return durable.Hint(err)
	}
	return os.Rename(temp, output)
}

// isStream says whether a tar is written to what is there, and not in its place:
// a pipe, or a device such as /dev/null.
func isStream(output string) bool {
	info, err := os.Stat(output)
	return err == nil && info.Mode()&(fs.ModeCharDevice|fs.ModeNamedPipe) != 0
}

func exportStream(v *rootfs.View, output string) error {
	f, err := os.OpenFile(output, os.O_WRONLY, 0)
	if err == nil {
		err = errors.Join(export.Tar(f, v), f.Close())
	}
	if err != nil {
		return fmt.Errorf("exporting a tar to %q: %w; name another place with --output", output, err)
	}
	return nil
}

func exportTar(v *rootfs.View, to string) error {
	return durable.Write(durable.OS{}, "", to, 0o644, func(w io.Writer) error { return export.Tar(w, v) })
}

func exportStick(m *serve.Machine, to string) error {
	files, err := stick.ForNode(m.Cluster, m.Node, stick.ReadAll(m.View.Open))
	if err != nil {
		return err
	}
	root, err := m.View.Attr(m.View.Root())
	if err != nil {
		return err
	}
	return stick.Write(to, files, time.Unix(root.Sec, 0).UTC())
}

// exportLayout copies one node's manifest with all that it needs; it is named
// after the node.
func exportLayout(ctx context.Context, e exported, to string) error {
	out, err := layout.Open(to, layout.Options{Temp: to + ".ingest", Lock: to + ".lock"})
	if err != nil {
		return err
	}
	from := e.store.Images()
	var all []ocispec.Descriptor
	err = from.Walk(ctx, e.manifest, func(d ocispec.Descriptor, err error) error {
		all = append(all, d)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range all {
		if err := copyBlob(ctx, from, out, d); err != nil {
			return fmt.Errorf("copying the blob %s: %w", d.Digest, err)
		}
	}
	return out.Tag(ctx, e.manifest, e.machine.Node.Name+":latest")
}

func copyBlob(ctx context.Context, from, to *layout.Layout, d ocispec.Descriptor) error {
	r, err := from.Fetch(ctx, d)
	if err != nil {
		return err
	}
	return errors.Join(to.Push(ctx, d, r), r.Close())
}

package main

import (
	"fmt"
	"io"
	"path"

	"rhizome/pipeline"
	"rhizome/registry/imagefmt"
	"rhizome/serve"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

// blamed says what made a file.
type blamed struct {
	Path string `json:"path"`
	// Layer counts the manifest's layers, 1 the lowest; 0 is the secret that
	// serve lays over the root.
	Layer  int           `json:"layer"`
	Of     int           `json:"of"`
	Digest digest.Digest `json:"digest,omitempty"`
	Role   string        `json:"role,omitempty"`
	Stage  string        `json:"stage,omitempty"`
	// Precached says that the body lies in the precache bundle, above Layer.
	Precached bool `json:"precached,omitempty"`
	// Source is the recipe's file and line, "web.yaml:12".
	Source string `json:"source,omitempty"`
}

func (a *app) blameCommand() *cobra.Command {
	return a.fileArgs(a.jsonFlag(&cobra.Command{
		Use:   "blame REF NODE PATH",
		Short: "Say which layer, stage and recipe line made a file",
		Long: `Say which layer, stage and recipe line made a file of a node's merged root. For
a directory that several layers hold it is the topmost one that says what the
directory is like. A symlink at the path's end is itself what is asked for.`,
		Args: withImages(exact(3, "an image, a node and a path"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMachine(cmd.Context(), args[0], args[1], func(m *serve.Machine) error {
				b, err := blame(m, args[2])
				if err != nil {
					return err
				}
				return a.printBlamed(b)
			})
		},
	}))
}

// blame finds a file's layer, and in the layer's annotations what made it.
func blame(m *serve.Machine, p string) (blamed, error) {
	b := blamed{Path: path.Clean("/" + p), Of: len(m.Layers)}
	for _, s := range m.Node.Secrets {
		if path.Clean("/"+s.Path) == b.Path {
			b.Role, b.Stage = "secret", s.Kind
			return b, nil
		}
	}
	n, err := m.View.MadeBy(p)
	if err == nil && m.Layers[n].Annotations[imagefmt.AnnotationRole] == pipeline.RoleBundle && n > 0 {
		b.Precached = true
		n, err = madeUnder(m, n, p)
	}
	if err != nil {
		return b, noFile(p, err)
	}
	l := m.Layers[n]
	b.Layer, b.Digest = n+1, l.Digest
	b.Role, b.Stage, b.Source = l.Annotations[imagefmt.AnnotationRole], l.Annotations[imagefmt.AnnotationStage], l.Annotations[imagefmt.AnnotationSource]
	return b, nil
}

// madeUnder is which layer below the bundle made a file: each keeps the names
// of what moved out of it.
func madeUnder(m *serve.Machine, bundle int, p string) (int, error) {
	below, err := rootfs.NewView(m.Manifest.String(), m.View.Layers()[:bundle])
	if err != nil {
		return 0, err
	}
	return below.MadeBy(p)
}

func (a *app) printBlamed(b blamed) error {
	if a.json {
		return encodeJSON(a.out, b)
	}
	return table(a.out, "LAYER\tDIGEST\tROLE\tSTAGE\tSOURCE\tPATH", func(w io.Writer) {
		layer := fmt.Sprintf("%d/%d", b.Layer, b.Of)
		if b.Layer == 0 {
			layer = "-"
		}
		role := orDash(b.Role)
		if b.Precached {
			role += ", in the bundle"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", layer, short(b.Digest), role, orDash(b.Stage), orDash(b.Source), quoted(b.Path))
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

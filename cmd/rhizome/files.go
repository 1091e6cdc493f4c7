package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// storeSource lets serve read images out of the store.
type storeSource struct{ *store.Store }

func (s storeSource) Document(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return s.Images().ReadAll(ctx, d)
}

func (s storeSource) Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) (serve.LayerBlob, ocispec.Descriptor, error) {
	l, err := s.Store.Layer(ctx, d, diffID)
	if err != nil {
		return nil, d, err
	}
	return l.Blob, l.Descriptor, nil
}

// readCache is enough to read a few files.
const readCache = 64 << 20

// withView opens the merged root of one node of an image and hands it to use.
func (a *app) withView(ctx context.Context, image, node string, use func(*rootfs.View) error) error {
	return a.withMachine(ctx, image, node, func(m *serve.Machine) error { return use(m.View) })
}

// withMachine opens one node of an image and hands it to use.
func (a *app) withMachine(ctx context.Context, image, node string, use func(*serve.Machine) error) error {
	return a.withNode(ctx, image, node, func(e exported) error { return use(e.machine) })
}

// withNode is withMachine for those who need the store as well.
func (a *app) withNode(ctx context.Context, image, node string, use func(exported) error) error {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	return useNode(ctx, s, image, node, use)
}

func useNode(ctx context.Context, s *store.Store, image, node string, use func(exported) error) error {
	index, err := resolve(ctx, s, image)
	if err != nil {
		return err
	}
	nodes, err := s.Nodes(ctx, index)
	if err != nil {
		return err
	}
	loader := &serve.Loader{Source: storeSource{s}, Cache: rootfs.NewCache(readCache)}
	defer loader.Close()
	var names []string
	for _, n := range nodes {
		if n.Node != node {
			names = append(names, n.Node)
			continue
		}
		m, err := loader.Machine(ctx, n.Descriptor)
		if err != nil {
			return fmt.Errorf("opening the root of node %q: %w", node, err)
		}
		return use(exported{store: s, manifest: n.Descriptor, machine: m})
	}
	return &codeError{fmt.Errorf("the image %q has no node %q; it has %s", image, node, some(names)), exitNotFound}
}

// listed is a file as ls prints it.
type listed struct {
	Path   string `json:"path"`
	Kind   string `json:"kind"`
	Mode   string `json:"mode"`
	Nlink  uint32 `json:"nlink"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Size   uint64 `json:"size"`
	Target string `json:"target,omitempty"`
	Device string `json:"device,omitempty"`
	Digest string `json:"digest,omitempty"`
}

func (a *app) lsCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use:   "ls REF NODE PATH",
		Short: "List a folder of a node's merged root",
		Args:  withImages(exact(3, "an image, a node and a path"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withView(cmd.Context(), args[0], args[1], func(v *rootfs.View) error {
				files, err := list(v, args[2], recursive)
				if err != nil {
					return err
				}
				return a.printListed(files)
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "list everything below the path")
	return a.fileArgs(a.jsonFlag(cmd))
}

// noFile is why a path of a root cannot be had.
func noFile(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &codeError{fmt.Errorf("the node's root has no %q; rhizome ls lists what is there", p), exitNotFound}
	case errors.Is(err, rootfs.ErrIsDir):
		return fmt.Errorf("%q is a directory in the node's root; rhizome ls lists it", p)
	}
	return fmt.Errorf("in the node's root: %w", err)
}

func list(v *rootfs.View, p string, recursive bool) ([]listed, error) {
	f, err := v.Resolve(p)
	if err != nil {
		return nil, noFile(p, err)
	}
	p = path.Clean("/" + p)
	a, err := v.Attr(f)
	if err != nil {
		return nil, err
	}
	if a.Kind != rootfs.Dir {
		one, err := describe(v, p, f)
		return []listed{one}, err
	}
	return listDir(v, p, f, recursive)
}

func listDir(v *rootfs.View, p string, dir rootfs.File, recursive bool) ([]listed, error) {
	out := []listed{}
	var failed error
	err := v.ReadDir(dir, 0, func(d rootfs.Dirent) bool {
		name := path.Join(p, d.Name)
		one, err := describe(v, name, d.File)
		if err != nil {
			failed = err
			return false
		}
		out = append(out, one)
		if recursive && d.Kind == rootfs.Dir {
			below, err := listDir(v, name, d.File, true)
			out, failed = append(out, below...), err
		}
		return failed == nil
	})
	if err != nil {
		return nil, err
	}
	return out, failed
}

func describe(v *rootfs.View, name string, f rootfs.File) (listed, error) {
	a, err := v.Attr(f)
	if err != nil {
		return listed{}, err
	}
	l := listed{Path: name, Kind: a.Kind.String(), Mode: modeText(a), Nlink: a.Nlink, UID: a.UID, GID: a.GID, Size: a.Size}
	switch a.Kind {
	case rootfs.Symlink:
		l.Target, err = v.Readlink(f)
	case rootfs.Char, rootfs.Block:
		l.Device = fmt.Sprintf("%d,%d", a.Major, a.Minor)
	case rootfs.Regular:
		var sum [32]byte
		if sum, err = v.BodyDigest(f); err == nil {
			l.Digest = fmt.Sprintf("sha256:%x", sum)
		}
	}
	return l, err
}

// modeText is the mode as ls(1) writes it.
func modeText(a rootfs.Attr) string {
	kinds := map[rootfs.Kind]byte{
		rootfs.Dir: 'd', rootfs.Regular: '-', rootfs.Symlink: 'l', rootfs.Char: 'c', rootfs.Block: 'b', rootfs.Fifo: 'p',
	}
	text := append([]byte{kinds[a.Kind]}, "rwxrwxrwx"...)
	for i := range 9 {
		if a.Mode&(0o400>>i) == 0 {
			text[1+i] = '-'
		}
	}
	for i, special := range []struct {
		bit uint32
		set string
	}{{0o4000, "sS"}, {0o2000, "sS"}, {0o1000, "tT"}} {
		if at := 3 + 3*i; a.Mode&special.bit != 0 {
			text[at] = special.set[map[bool]int{true: 0, false: 1}[text[at] == 'x']]
		}
	}
	return string(text)
}

func (a *app) printListed(files []listed) error {
	if a.json {
		return json.NewEncoder(a.out).Encode(files)
	}
	return table(a.out, "MODE\tLINKS\tOWNER\tSIZE\tPATH", func(w io.Writer) {
		for _, f := range files {
			name := f.Path
			if f.Target != "" {
				name += " -> " + f.Target
			}
			size := fmt.Sprint(f.Size)
			if f.Device != "" {
				size = f.Device
			}
			fmt.Fprintf(w, "%s\t%d\t%d:%d\t%s\t%s\n", f.Mode, f.Nlink, f.UID, f.GID, size, name)
		}
	})
}

func (a *app) catCommand() *cobra.Command {
	return a.fileArgs(a.jsonFlag(&cobra.Command{
		Use:   "cat REF NODE PATH",
		Short: "Print a file of a node's merged root",
		Long: `Print a file of a node's merged root. With --json, print what ls does of it,
with the content beside it, in base64.`,
		Args: withImages(exact(3, "an image, a node and a path"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withView(cmd.Context(), args[0], args[1], func(v *rootfs.View) error { return a.cat(v, args[2]) })
		},
	}))
}

func (a *app) cat(v *rootfs.View, p string) error {
	r, err := v.Open(p)
	if err != nil {
		return noFile(p, err)
	}
	defer r.Close()
	if !a.json {
		_, err = io.Copy(a.out, r)
		return err
	}
	about, err := describe(v, path.Clean("/"+p), r.File())
	if err != nil {
		return err
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return encodeJSON(a.out, struct {
		listed
		Content []byte `json:"content"`
	}{about, content})
}

package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rhizome/serve/node/nodeapi"
)

// region is an export to lease regions of, of one of the kinds that the
// stories of regions are told of.
type region struct {
	*world
	kind string
	// h1 and h2 are two who lease: two nodes, or two programs of the one node
	// that has the export.
	h1, h2 nodeapi.Holder
	// mount is where the nodes see the export, export what they mount.
	mount, export string
}

// regionKinds are folders of the host, records without an image, records over
// the files of an image, and over those with the node's own in their place.
var regionKinds = []string{"disk", "records", "cow", "cow changed"}

// onRegions tells a story on every kind, over files that are there before: path
// and content in turn.
func onRegions(t *testing.T, files []string, story func(t *testing.T, r *region)) {
	needRoot(t)
	for _, kind := range regionKinds {
		t.Run(kind, func(t *testing.T) {
			w := worldAt(t, fastDir(t))
			r := regionOf(w, kind, files)
			w.start()
			t.Cleanup(func() { w.stop() })
			if kind != "cow" {
				r.lay(files...)
			}
			story(t, r)
		})
	}
}

// regionOf makes the world one with an export of a kind.
func regionOf(w *world, kind string, files []string) *region {
	r := &region{world: w, kind: kind, h1: holderOf("n1", addr1), h2: holderOf("n1", addr1), mount: "/etc", export: "/cow/n1/etc"}
	switch kind {
	case "disk":
		r.h2, r.mount, r.export = holderOf("n2", addr2), "/shared", "/shared/c"
		shareAll(w)
	case "records":
		r.mount, r.export = "/persist", "/persist/n1"
		if _, err := w.folder("cow/c/n1", "persist", ""); err != nil {
			w.t.Fatal(err)
		}
	case "cow":
		w.nodes.boots(addr1, makeView(w.t, 3, imageOf(files)...))
	case "cow changed":
		w.nodes.boots(addr1, makeView(w.t, 3, imageOf(image(files))...))
	}
	return r
}

// image is what is under files that the node changed all of.
func image(files []string) (all []string) {
	for i := 0; i < len(files); i += 2 {
		all = append(all, files[i], "the image's")
	}
	return all
}

// imageOf makes an image's /etc of paths and contents.
func imageOf(files []string) []file {
	all, made := []file{imgDir("etc", 0o755)}, map[string]bool{}
	for i := 0; i < len(files); i += 2 {
		dirs := strings.Split(files[i], "/")
		for n := 1; n < len(dirs); n++ {
			if d := path.Join(dirs[:n]...); !made[d] {
				made[d] = true
				all = append(all, imgDir("etc/"+d, 0o755))
			}
		}
		all = append(all, imgFile("etc/"+files[i], 0o644, files[i+1]))
	}
	return all
}

func shareAll(w *world) {
	for a, n := range w.nodes.nodes {
		n.Shared = "/shared"
		w.nodes.nodes[a] = n
	}
}

func holderOf(name, addr string) nodeapi.Holder {
	return nodeapi.Holder{Cluster: "c", Node: name, Boot: "b1", Addr: netip.MustParseAddr(addr)}
}

// on is the path on the node, in is the name in its tars.
func (r *region) on(p string) string { return path.Join(r.mount, p) }

func (r *region) in(p string) string { return r.on(p)[1:] }

// with calls fn with the export's root.
func (r *region) with(fn func(root object) error) {
	r.t.Helper()
	n, _ := r.nodes.ByAddr(netip.MustParseAddr(addr1))
	at, err := locate(&n, r.mount)
	if err != nil {
		r.t.Fatal(err)
	}
	x, err := r.volumes.use(&n, at.spec)
	if err != nil {
		r.t.Fatal(err)
	}
	defer x.leave()
	root, err := x.tree.root()
	if err == nil {
		err = fn(root)
		root.close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// step finds a name, or makes it.
func step(dir object, name string, k kind, mode uint32) (object, error) {
	o, err := dir.lookup(name)
	if errors.Is(err, syscall.ENOENT) {
		return dir.create(name, &newObject{kind: k, mode: mode})
	}
	return o, err
}

// at opens a path for fn; folders are made on the way.
func (r *region) at(p string, fn func(dir object, name string) error) {
	r.t.Helper()
	r.with(func(root object) error {
		dir := root
		parts := strings.Split(p, "/")
		for _, name := range parts[:len(parts)-1] {
			next, err := step(dir, name, kindDir, 0o755)
			if err != nil {
				return err
			}
			defer next.close()
			dir = next
		}
		return fn(dir, parts[len(parts)-1])
	})
}

// lay writes files, as somebody would who did not lease them.
func (r *region) lay(files ...string) {
	r.t.Helper()
	for i := 0; i < len(files); i += 2 {
		r.at(files[i], func(dir object, name string) error {
			f, err := step(dir, name, kindRegular, 0o644)
			if err != nil {
				return err
			}
			defer f.close()
			return errors.Join(f.set(&setAttrs{hasSize: true}), f.writeAt([]byte(files[i+1]), 0), f.sync(), dir.sync())
		})
	}
}

func (r *region) link(p, as string) {
	r.t.Helper()
	r.at(p, func(dir object, name string) error {
		o, err := dir.lookup(name)
		if err != nil {
			return err
		}
		defer o.close()
		r.at(as, func(to object, name string) error { return to.link(name, o) })
		return nil
	})
}

func (r *region) symlink(p, target string) {
	r.t.Helper()
	r.at(p, func(dir object, name string) error {
		o, err := dir.create(name, &newObject{kind: kindSymlink, mode: 0o777, target: target})
		if err == nil {
			o.close()
		}
		return err
	})
}

func (r *region) chmod(p string, mode uint32) {
	r.t.Helper()
	r.at(p, func(dir object, name string) error {
		o, err := dir.lookup(name)
		if err != nil {
			return err
		}
		defer o.close()
		return o.set(&setAttrs{hasMode: true, mode: mode})
	})
}

// shown is the export as text: path, mode, links, content.
func (r *region) shown() string {
	r.t.Helper()
	var b strings.Builder
	r.with(func(root object) error { return show(&b, root, "") })
	return b.String()
}

func show(b *strings.Builder, dir object, at string) error {
	names, err := namesIn(dir)
	for _, name := range names {
		p := path.Join(at, name)
		if p == keptFolder {
			continue
		}
		o, err := dir.lookup(name)
		if err == nil {
			err = showOne(b, o, p)
			o.close()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return err
}

func showOne(b *strings.Builder, o object, p string) error {
	a, err := o.attr()
	if err != nil {
		return err
	}
	switch a.kind {
	case kindDir:
		fmt.Fprintf(b, "%s d%o\n", p, a.mode)
		return show(b, o, p)
	case kindSymlink:
		target, err := o.readlink()
		fmt.Fprintf(b, "%s -> %s\n", p, target)
		return err
	case kindRegular:
		data, err := io.ReadAll(io.NewSectionReader(readerOf{o}, 0, int64(a.size)))
		fmt.Fprintf(b, "%s %o %d:%d %d %s\n", p, a.mode, a.uid, a.gid, a.nlink, data)
		return err
	}
	fmt.Fprintf(b, "%s %d %o\n", p, a.kind, a.mode)
	return nil
}

type readerOf struct{ object }

func (r readerOf) ReadAt(p []byte, off int64) (int, error) { return r.readAt(p, off) }

// read is what a file has, or why it cannot be read.
func (r *region) read(p string) (data []byte) {
	r.t.Helper()
	r.at(p, func(dir object, name string) error {
		o, err := dir.lookup(name)
		if err != nil {
			return err
		}
		defer o.close()
		a, err := o.attr()
		if err == nil {
			data, err = io.ReadAll(io.NewSectionReader(readerOf{o}, 0, int64(a.size)))
		}
		return err
	})
	return data
}

// left is what commits left beside the tree that should have gone.
func (r *region) left() []string {
	r.t.Helper()
	if r.kind == "disk" {
		return dirNames(r.t, r.dir, "persist", "c", sharedOwner, stageName)
	}
	var left []string
	r.with(func(root object) error {
		o := root.(*overlayObject).o
		for _, name := range dirNames(r.t, o.dir, "bodies") {
			var id uint64
			if _, err := fmt.Sscanf(name, "%016x", &id); err != nil || o.objects[id] == nil || !o.objects[id].has(ownBody) {
				left = append(left, name)
			}
		}
		for lease := range o.done {
			left = append(left, "lease "+lease)
		}
		return nil
	})
	return left
}

func dirNames(t testing.TB, at ...string) (names []string) {
	all, err := os.ReadDir(filepath.Join(at...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	return names
}

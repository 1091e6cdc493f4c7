package volume

import (
	"bytes"
	"maps"
	"testing"

	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

// A node's changes, written as a layer and laid over its image as a build would
// lay it, are the tree that the node sees.
func TestChangesAsALayerOverTheImageAreWhatTheNodeSees(t *testing.T) {
	w, c, root := cow(t)
	c.put(root, "passwd", "changed:0:0\n")
	c.must("chmod", c.setattr(c.walk(root, "shadow"), sattr{mode: ptr(uint32(0o640))}), statusOK)
	c.must("removing", c.remove(root, "motd"), statusOK)
	c.must("moving a directory of the image", c.rename(root, "rc.d", root, "init.d"), statusOK)
	again, _ := c.mkdir(root, "rc.d", 0o750)
	c.put(again, "mine", "mine")
	c.must("linking", c.link(c.walk(root, "passwd"), root, "passwd.link"), statusOK)
	c.must("a symlink", second(c.symlink(root, "sym", "passwd")), statusOK)
	seen := c.tree(root, "/etc/", map[string]string{})

	tree := w.trees()[0]
	base := w.nodes.views[tree.Image]
	var stream, blob bytes.Buffer
	if err := WriteLayer(&stream, tree, base); err != nil {
		t.Fatal(err)
	}
	if _, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1}); err != nil {
		t.Fatal(err)
	}
	index, err := layerfmt.ReadTail(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := rootfs.OpenLayer("sha256:changes", bytes.NewReader(blob.Bytes()), int64(blob.Len()), index, rootfs.NewCache(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := rootfs.NewView("sha256:merged", append(base.Layers(), changes))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = merged.Walk("/etc", func(p string, f rootfs.File, a rootfs.Attr) error {
		switch a.Kind {
		case rootfs.Symlink:
			target, err := merged.Readlink(f)
			got[p] = "-> " + target
			return err
		case rootfs.Regular:
			body := make([]byte, a.Size)
			_, err := merged.ReadAt(f, body, 0)
			got[p] = string(body)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, seen) {
		t.Errorf("the layer over the image is\n%q\nthe node sees\n%q", got, seen)
	}
	f, _ := merged.Resolve("/etc/shadow")
	if a, _ := merged.Attr(f); a.Mode != 0o640 {
		t.Errorf("shadow has mode %o in the layer", a.Mode)
	}
}

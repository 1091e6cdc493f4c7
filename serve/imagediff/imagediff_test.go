package imagediff

import (
	"archive/tar"
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"rhizome/registry/imagefmt"
	"rhizome/registry/layerfmt"
	"rhizome/serve/rootfs"
)

// rootOf makes a node's root of one layer.
func rootOf(t *testing.T, files map[string]string) *rootfs.View {
	t.Helper()
	var stream, blob bytes.Buffer
	w := tar.NewWriter(&stream)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum, err := layerfmt.Encode(&blob, &stream, layerfmt.Options{Jobs: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(blob.Bytes())
	index, err := layerfmt.ReadTail(r, r.Size(), sum.Annotations())
	if err != nil {
		t.Fatal(err)
	}
	l, err := rootfs.OpenLayer(sum.Digest.String(), r, r.Size(), index, rootfs.NewCache(0))
	if err != nil {
		t.Fatal(err)
	}
	v, err := rootfs.NewView(sum.Digest.String(), []*rootfs.Layer{l})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const status = `Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Conffiles:
 /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d
Description: shell
 Version: 9 is not its version

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1.3
`

func TestTheReportNamesNodesDataKernelsPackagesAndFiles(t *testing.T) {
	boot := imagefmt.Boot{OS: "linux", Kernel: "/vmlinuz", Cmdline: "quiet"}
	old := rootOf(t, map[string]string{"vmlinuz": "6.1", "var/lib/dpkg/status": status, "etc/a": "a"})
	newer := strings.Replace(strings.Replace(status, "5.2-1", "5.2-2", 1), "zlib1g", "zlib2g", 1)
	new := rootOf(t, map[string]string{"vmlinuz": "6.2", "var/lib/dpkg/status": newer, "etc/a": "a"})
	before := []Node{{Node: imagefmt.Node{Name: "n1", Boot: boot}, View: old}, {Node: imagefmt.Node{Name: "n2", Boot: boot}, View: old}, {Node: imagefmt.Node{Name: "n3"}, View: old}}
	boot.Cmdline = "verbose"
	after := []Node{{Node: imagefmt.Node{Name: "n1", Boot: boot}, View: new}, {Node: imagefmt.Node{Name: "n2", Boot: boot}, View: new}, {Node: imagefmt.Node{Name: "n4"}, View: new}}
	after[0].Cluster.Network.MTU = 9000

	r, err := Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"n1", "n2"}
	wantFields(t, "cluster", r.Cluster, Field{Name: "network.mtu", New: "9000"})
	wantFields(t, "data", r.Data, Field{"boot.cmdline", "quiet", "verbose", both})
	wantFields(t, "packages", r.Packages, Field{"bash:amd64", "5.2-1", "5.2-2", both}, Field{"zlib1g:amd64", "1.3", "", both}, Field{"zlib2g:amd64", "", "1.3", both})
	if len(r.Kernels) != 1 || !strings.HasPrefix(r.Kernels[0].New, "/vmlinuz sha256:") {
		t.Errorf("kernels: %+v", r.Kernels)
	}
	if !slices.Equal(r.NodesAdded, []string{"n4"}) || !slices.Equal(r.NodesRemoved, []string{"n3"}) {
		t.Errorf("nodes: +%v -%v", r.NodesAdded, r.NodesRemoved)
	}
	if len(r.Files) != 2 || r.Files[1].Path != "/vmlinuz" || !slices.Equal(r.Files[1].Nodes, both) {
		t.Errorf("files: %+v", r.Files)
	}
	if same, err := Compare(before, before); err != nil || !same.Empty() {
		t.Errorf("an image differs from itself: %+v, %v", same, err)
	}
}

func wantFields(t *testing.T, what string, got []Field, want ...Field) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b Field) bool {
		return a.Name == b.Name && a.Old == b.Old && a.New == b.New && slices.Equal(a.Nodes, b.Nodes)
	}) {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// FuzzStatus: whatever a root holds there, reading it keeps no more than it was
// given, and no name is empty.
func FuzzStatus(f *testing.F) {
	f.Add(status)
	f.Add("Package: a\nStatus: x installed\n\n:\n \n")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := readStatus(strings.NewReader(text))
		if err != nil {
			return
		}
		size := 0
		for name, version := range found {
			if strings.HasPrefix(name, ":") {
				t.Errorf("a package without a name: %q", name)
			}
			size += len(name) - 1 + len(version)
		}
		if size > len(text) {
			t.Errorf("%d bytes came of %d", size, len(text))
		}
	})
}

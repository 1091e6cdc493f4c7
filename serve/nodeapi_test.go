package serve

import (
	"encoding/json"
	"net/netip"
	"testing"

	"rhizome/registry/imagefmt"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// planned is the plan of a node, as JSON.
func planned(t *testing.T, change func(*imagefmt.Node)) string {
	t.Helper()
	layer, err := rootfs.MemoryLayer(rootfs.MemoryEntry{Path: "/f", Kind: rootfs.Regular, Data: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	manifest := digest.FromString("manifest")
	view, err := rootfs.NewView(manifest.String(), []*rootfs.Layer{layer})
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		Cluster: imagefmt.Cluster{Name: "c", Network: imagefmt.Network{Server: netip.MustParseAddr("10.0.0.1")}},
		Node:    imagefmt.Node{Name: "n1", Address: netip.MustParseAddr("10.0.0.11"), Boot: imagefmt.Boot{OS: "linux"}},
		View:    view, Manifest: manifest,
		Layers:  []ocispec.Descriptor{{Digest: "sha256:aa", Size: 7}},
		DiffIDs: []digest.Digest{"sha256:bb"},
	}
	m.Layers[0].Annotations = map[string]string{imagefmt.AnnotationFirstSize: "5", imagefmt.AnnotationFirstDigest: "sha256:cc"}
	change(&m.Node)
	p := m.plan()
	p.Digest = ""
	for i := range p.Layers {
		p.Layers[i].Uncompressed = 0
	}
	if p.Bundle != nil {
		p.Bundle.Uncompressed = 0
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAPlanSaysWhatTheEarlyProgramIsToDo(t *testing.T) {
	const begin = `{"node":"n1","cluster":"c","digest":"","os":"linux","root":"`
	const root = `","export":"10.0.0.1:/nodes/n1"`
	const blobs = `,"blobs":"10.0.0.1:/blobs/n1"`
	const blob = `{"url":"http://10.0.0.1/blobs/sha256/aa","digest":"sha256:aa","diffId":"sha256:bb","size":7`
	for _, c := range []struct {
		name   string
		change func(*imagefmt.Node)
		want   string
	}{
		{"nothing", func(*imagefmt.Node) {}, begin + "nfs" + root + "}"},
		{"the root in memory", func(n *imagefmt.Node) { n.Root = "ram" }, begin + "ram" + root + blobs + `,"layers":[` + blob + "}]}"},
		{"a bundle", func(n *imagefmt.Node) {
			n.Root, n.Bundle, n.BundleFolders, n.BundlePrivate = "precache", "sha256:bb", []string{"/usr"}, true
		}, begin + "precache" + root + blobs + `,"bundle":` + blob + `,"first":{"offset":0,"size":5,"digest":"sha256:cc"},"folders":["/usr"],"private":true}}`},
		{"exports", func(n *imagefmt.Node) { n.Persist, n.Shared, n.CopyOnWrite = "/persist", "/data", []string{"/etc"} },
			begin + "nfs" + root + `,"persist":{"path":"/persist","export":"10.0.0.1:/persist/n1"},"shared":{"path":"/data","export":"10.0.0.1:/shared/c"},"copyOnWrite":[{"path":"/etc","export":"10.0.0.1:/cow/n1/etc"}]}`},
	} {
		if got := planned(t, c.change); got != c.want {
			t.Errorf("%s: the plan is\n%s\nand not\n%s", c.name, got, c.want)
		}
	}
}

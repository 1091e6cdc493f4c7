package registry

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/registry/layerfmt"
	"rhizome/registry/ref"
	"rhizome/registry/registrytest"
	"rhizome/registry/remote"
	"rhizome/registry/store"
)

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Who: "tester@host"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func link(t *testing.T, s *store.Store, o remote.Options) Link {
	t.Helper()
	o.PlainHTTP = o.CAFile == ""
	if o.MountFrom == nil {
		o.MountFrom = s.MountFrom
	}
	c, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return Link{Store: s, Client: c, PlainHTTP: o.PlainHTTP}
}

func parse(t *testing.T, s string) ref.Reference {
	t.Helper()
	r, err := ref.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAnImageGoesThroughARegistryAndComesBackTheSame(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	from, to := open(t), open(t)
	image := registrytest.Cluster(t, from.Images(), 1)
	if err := from.Tag(ctx, image, "web:1"); err != nil {
		t.Fatal(err)
	}
	dest := parse(t, reg.Host+"/team/web:1")
	if err := link(t, from, remote.Options{}).Push(ctx, image, dest, "1-20261122"); err != nil {
		t.Fatal(err)
	}
	got, err := link(t, to, remote.Options{}).Pull(ctx, parse(t, reg.Host+"/team/web:1-20261122"), PullOptions{Tag: "web:1"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != image.Digest {
		t.Errorf("pulled %s, pushed %s", got.Digest, image.Digest)
	}
	findings, err := to.Verify(ctx, got, nil)
	if err != nil || len(findings) > 0 {
		t.Errorf("the pulled image: %v, %v", findings, err)
	}
	out, err := exec.Command("skopeo", "inspect", "--raw", "oci:"+to.Dir()+"/oci:web:1").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("skopeo inspect: %v\n%s", err, out)
	}
}

func TestAForeignImageIsReadyToServeAfterAPull(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	from, to := open(t), open(t)
	layer := registrytest.GzipLayer(t, from.Images(), registrytest.Tar(1, 3, 10_000))
	image := registrytest.Index(t, from.Images(), registrytest.Manifest(t, from.Images(), "n1", layer))
	if err := link(t, from, remote.Options{}).Push(ctx, image, parse(t, reg.Host+"/debian:12")); err != nil {
		t.Fatal(err)
	}
	if _, err := link(t, to, remote.Options{}).Pull(ctx, parse(t, reg.Host+"/debian:12"), PullOptions{Tag: "debian:12"}); err != nil {
		t.Fatal(err)
	}
	copies, err := filepath.Glob(filepath.Join(to.Dir(), "derived", "*.tar.zst"))
	if err != nil || len(copies) != 1 || filepath.Base(copies[0]) != layer.DiffID.Encoded()+".tar.zst" {
		t.Errorf("derived/ has %q, %v", copies, err)
	}
	got, err := to.Layer(ctx, layer.Descriptor, layer.DiffID)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if d, err := to.Resolve(ctx, "debian:12"); err != nil || d.Digest != image.Digest || !got.Derived {
		t.Errorf("the image is %v, %v", d.Digest, err)
	}
}

// The manifest says which index a layer of ours has. Right bytes under a wrong
// promise are refused before anybody serves them.
func TestALayerWithAnotherIndexThanPromisedIsNotTaken(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	from, to := open(t), open(t)
	layer := registrytest.OurLayer(t, from.Images(), registrytest.Tar(1, 3, 1000))
	layer.Descriptor.Annotations[layerfmt.AnnotationIndexDigest] = registrytest.OurLayer(t, from.Images(), registrytest.Tar(2, 1, 10)).Descriptor.Annotations[layerfmt.AnnotationIndexDigest]
	image := registrytest.Index(t, from.Images(), registrytest.Manifest(t, from.Images(), "n1", layer))
	if err := link(t, from, remote.Options{}).Push(ctx, image, parse(t, reg.Host+"/web:1")); err != nil {
		t.Fatal(err)
	}
	_, err := link(t, to, remote.Options{}).Pull(ctx, parse(t, reg.Host+"/web:1"), PullOptions{Tag: "web:1"})
	var e *remote.Error
	if !errors.As(err, &e) || e.Kind != remote.Lied || !strings.Contains(err.Error(), "tree index") {
		t.Errorf("it gives %v", err)
	}
	if ok, _ := to.Images().Exists(ctx, layer.Descriptor); ok {
		t.Error("the layer was stored")
	}
	if _, err := to.Resolve(ctx, "web:1"); err == nil {
		t.Error("the image has a name")
	}
}

func TestADamagedStoreIsMendedFromWhereItsImagesCameFrom(t *testing.T) {
	ctx := context.Background()
	reg := registrytest.Docker(t, "docker-registry")
	s := open(t)
	l := link(t, s, remote.Options{})
	image := registrytest.Cluster(t, s.Images(), 1)
	if err := s.Tag(ctx, image, "web:1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Push(ctx, image, parse(t, reg.Host+"/web:1")); err != nil {
		t.Fatal(err)
	}
	blobs, err := s.Images().Blobs()
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blobs {
		path, _ := s.Images().Path(b.Digest)
		if i%2 == 0 {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, make([]byte, b.Size), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	found, left, err := l.Mend(ctx, image, nil)
	if err != nil || len(found) != len(blobs) || len(left) != 0 {
		t.Errorf("%d of %d found, %v left, %v", len(found), len(blobs), left, err)
	}
	if err := s.Images().Complete(ctx, image); err != nil {
		t.Error(err)
	}
	path, _ := s.Images().Path(blobs[0].Digest)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(reg.Dir)); err != nil {
		t.Fatal(err)
	}
	if _, left, err := l.Mend(ctx, image, nil); err != nil || len(left) != 1 || !strings.Contains(left[0].Text, "not mended") {
		t.Errorf("without the registry: %v, %v", left, err)
	}
}

// The store's images are for any OCI tool to read, and what another tool puts
// there is ours to read.
func TestSkopeoAndTheStoreShareTheLayout(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skipped: skopeo is not installed")
	}
	ctx := context.Background()
	a, b := open(t), open(t)
	image := registrytest.Cluster(t, a.Images(), 1)
	for _, name := range []string{"team/web:1", "web"} {
		if err := a.Tag(ctx, image, name); err != nil {
			t.Fatal(err)
		}
	}
	other := registrytest.Cluster(t, b.Images(), 2)
	if err := b.Tag(ctx, other, "db:1"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"team/web:1", "web:latest"} {
		out, err := exec.Command("skopeo", "--insecure-policy", "copy", "-q", "--all", "oci:"+a.Dir()+"/oci:"+name, "oci:"+b.Dir()+"/oci:"+name).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo: %v\n%s", err, out)
		}
	}
	images, err := b.List(ctx)
	if err != nil || len(images) != 3 {
		t.Fatalf("the images are %+v, %v", images, err)
	}
	for _, i := range images {
		want := image.Digest
		if i.Name == "db:1" {
			want = other.Digest
		}
		if i.Descriptor.Digest != want {
			t.Errorf("%q is %s", i.Name, i.Descriptor.Digest)
		}
		if findings, err := b.Verify(ctx, i.Descriptor, nil); err != nil || len(findings) > 0 {
			t.Errorf("%q: %v, %v", i.Name, findings, err)
		}
	}
}

package registry

import (
	"context"
	"os/exec"
	"testing"

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

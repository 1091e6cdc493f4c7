package e2e

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Programs that know nothing of rhizome read the image: skopeo takes it out of
// the store, to a registry and back with every digest kept, and zstd and tar
// list every layer.
func TestOtherToolsReadTheImage(t *testing.T) {
	w := need(t)
	out := filepath.Join(t.TempDir(), "copy")
	store := "oci:" + filepath.Join(w.store, "oci") + ":e2e:v1"
	raw := tool(t, "skopeo", "inspect", "--raw", store)
	if got := digest.FromBytes(raw).String(); got != w.digest {
		t.Errorf("skopeo reads the index %s out of the store, want %s", got, w.digest)
	}
	registry, stop, err := startRegistry(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	there := "docker://" + registry + "/copied:v1"
	tool(t, "skopeo", "copy", "--all", "--dest-tls-verify=false", store, there)
	tool(t, "skopeo", "copy", "--all", "--src-tls-verify=false", there, "oci:"+out+":v1")
	if back := tool(t, "skopeo", "inspect", "--raw", "oci:"+out+":v1"); !bytes.Equal(back, raw) {
		t.Error("after the way to the registry and back, the index is another one")
	}
	var m ocispec.Manifest
	readBlob(t, w, manifestOf(t, w, "n1"), &m)
	for _, l := range m.Layers {
		copied := filepath.Join(out, "blobs", strings.Replace(l.Digest.String(), ":", "/", 1))
		list := tool(t, "sh", "-c", `zstd -dc "$1" | tar t`, "sh", copied)
		if len(list) == 0 {
			t.Errorf("layer %s lists nothing", l.Digest)
		}
	}
}

// tool runs a program and returns what it printed.
func tool(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out
}

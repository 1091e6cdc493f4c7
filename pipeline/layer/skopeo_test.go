package layer

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"rhizome/registry/layerfmt"
)

// TestSkopeoAndZstdReadTheLayer hands a layer to decoders that know nothing of
// indexes: what they unpack must have the layer's DiffID.
func TestSkopeoAndZstdReadTheLayer(t *testing.T) {
	for _, prog := range []string{"skopeo", "zstd", "tar"} {
		if _, err := exec.LookPath(prog); err != nil {
			t.Skipf("skipped: no %s here; install the Debian package of that name", prog)
		}
	}
	var blob bytes.Buffer
	s, err := Write(&blob, sample(t), epoch, 2)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	layer := putBlob(t, dir, layerfmt.MediaType, blob.Bytes())
	layer["annotations"] = s.Annotations()
	config := putBlob(t, dir, "application/vnd.oci.image.config.v1+json", toJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{s.DiffID.String()}}}))
	manifest := putBlob(t, dir, "application/vnd.oci.image.manifest.v1+json", toJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []any{layer}}))
	manifest["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "t"}
	writeFile(t, filepath.Join(dir, "index.json"), toJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{manifest}}))
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))

	out := filepath.Join(t.TempDir(), "plain")
	if msg, err := exec.Command("skopeo", "--insecure-policy", "copy", "--dest-decompress", "oci:"+dir+":t", "dir:"+out).CombinedOutput(); err != nil {
		t.Fatalf("skopeo: %v\n%s", err, msg)
	}
	plain, err := os.ReadFile(filepath.Join(out, s.DiffID.Encoded()))
	if err != nil || fmt.Sprintf("sha256:%x", sha256.Sum256(plain)) != s.DiffID.String() {
		t.Errorf("skopeo unpacked no tar of DiffID %s: %v", s.DiffID, err)
	}
	names, err := exec.Command("bash", "-c", "set -o pipefail; zstd -dc < '"+filepath.Join(dir, "blobs/sha256", s.Digest.Encoded())+"' | tar -t | wc -l").Output()
	if want := fmt.Sprintf("%d\n", s.Entries); err != nil || string(names) != want {
		t.Errorf("zstd -dc | tar -t: %q, %v; want %q", names, err, want)
	}
}

func putBlob(t *testing.T, dir, mediaType string, b []byte) map[string]any {
	t.Helper()
	sum := fmt.Sprintf("%x", sha256.Sum256(b))
	writeFile(t, filepath.Join(dir, "blobs/sha256", sum), b)
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + sum, "size": len(b)}
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

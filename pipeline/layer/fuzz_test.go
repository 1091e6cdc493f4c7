package layer

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"rhizome/pipeline/tree"
)

// FuzzTree's law: a tar that becomes a tree, and a layer, reads back as a tree
// that writes the same tar.
func FuzzTree(f *testing.F) {
	f.Add(tarOf(f, sample(f)))
	f.Add(tarOf(f, tree.New()))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, stream []byte) {
		name := filepath.Join(dir, "in.tar")
		if err := os.WriteFile(name, stream, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := tree.FromTar(name)
		if err != nil {
			return
		}
		var blob bytes.Buffer
		s, err := Write(&blob, in, epoch, 1)
		if err != nil {
			return // such as a device where none belongs
		}
		out, err := ReadTree(bytes.NewReader(blob.Bytes()), s.Size, s.Annotations())
		if err != nil {
			t.Fatalf("a layer that Write wrote: %v", err)
		}
		if !bytes.Equal(tarOf(t, in), tarOf(t, out)) {
			t.Fatal("the layer reads back as another tree")
		}
	})
}

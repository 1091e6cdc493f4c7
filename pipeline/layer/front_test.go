package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// The law: whatever comes first, a front of the blob decodes by itself to whole
// entries, the named ones among them, and its digest is that of its bytes.
func TestAFrontStandsByItself(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		tr, names := tree.New(), []string{}
		for i := range 30 {
			// Some are bigger than a frame, some fill one to the byte or nearly.
			size := []int{0, r.IntN(300), r.IntN(200 << 10), layerfmt.MaxFrame - 512, layerfmt.MaxFrame, layerfmt.MaxFrame + r.IntN(2<<20)}[r.IntN(6)]
			name := fmt.Sprintf("usr/%02d", i)
			if err := tr.Add(tree.Entry{Path: name, Kind: tree.File, Mode: 0o644, Body: tree.Text(string(noise(r, size)))}); err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
		r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		var blob bytes.Buffer
		if _, err := WriteFirst(&blob, tr, names, time.Unix(1, 0), 2); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 7, 15, len(names)} {
			f, err := FrontOf(bytes.NewReader(blob.Bytes()), int64(blob.Len()), nil, names[:n])
			if err != nil {
				t.Fatal(err)
			}
			front := blob.Bytes()[:f.Size]
			if f.Digest != digest.FromBytes(front) {
				t.Fatalf("seed %d: the front of %d has the digest %s", seed, n, f.Digest)
			}
			got := entriesOf(t, front)
			for _, want := range names[:n] {
				if !got[want] && tr.Lookup(want).Size() > 0 {
					t.Fatalf("seed %d: the front of %d paths, %d of %d bytes, lacks %s", seed, n, f.Size, blob.Len(), want)
				}
			}
		}
	}
}

func noise(r *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := 0; i < len(b); i += 97 {
		b[i] = byte(r.Uint32())
	}
	return b
}

// entriesOf reads the tar of some frames to its end.
func entriesOf(t *testing.T, front []byte) map[string]bool {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(front))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	got := map[string]bool{}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err == nil {
			_, err = io.Copy(io.Discard, tr)
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = true
	}
}

package layerfmt

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// makeTar writes a tar of headers; bodies are given by name.
func makeTar(t testing.TB, bodies map[string][]byte, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Size = int64(len(bodies[h.Name]))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bodies[h.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encode(t testing.TB, stream []byte, jobs int) ([]byte, Summary) {
	t.Helper()
	var b bytes.Buffer
	s, err := Encode(&b, bytes.NewReader(stream), Options{Jobs: jobs})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), s
}

func openBlob(t testing.TB, blob []byte, ann map[string]string) *Index {
	t.Helper()
	raw, err := ReadTail(bytes.NewReader(blob), int64(len(blob)), ann)
	if err != nil {
		t.Fatal(err)
	}
	x, err := OpenIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// mixed is a tar of files from empty to several frames, part of it noise that
// does not compress.
func mixed(t testing.TB) ([]byte, map[string][]byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	bodies := map[string][]byte{}
	headers := []tar.Header{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "./d/", Mode: 0o711}}
	sizes := []int{0, 1, 511, 512, 513, 100, 70000, MaxFrame - 512, MaxFrame - 511, MaxFrame, 3*MaxFrame + 17, 5, 0, 900000, 900000, 12}
	for i, n := range sizes {
		name := fmt.Sprintf("./d/f%02d", i)
		body := bytes.Repeat([]byte("words and words "), n/16+1)[:n]
		if i%2 == 0 {
			for j := range body {
				body[j] = byte(rng.Uint32())
			}
		}
		bodies[name] = body
		headers = append(headers, tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
	}
	return makeTar(t, bodies, headers...), bodies
}

func TestAnyNumberOfJobsGivesTheSameBlob(t *testing.T) {
	stream, _ := mixed(t)
	one, s1 := encode(t, stream, 1)
	for _, jobs := range []int{2, 7, 0} {
		if other, s := encode(t, stream, jobs); !bytes.Equal(one, other) || s != s1 {
			t.Errorf("%d jobs gave another blob", jobs)
		}
	}
	if again, _ := encode(t, stream, 3); !bytes.Equal(one, again) {
		t.Error("the second time gave another blob")
	}
}

func TestEveryBodyIsFoundWhereTheIndexSays(t *testing.T) {
	stream, bodies := mixed(t)
	blob, s := encode(t, stream, 2)
	x := openBlob(t, blob, s.Annotations())
	if x.DiffID() != sha256.Sum256(stream) || x.StreamSize() != int64(len(stream)) {
		t.Error("the index holds another DiffID or size")
	}
	dir, _, ok := x.Find(Root, "d")
	if !ok || x.Attr(dir).Mode != 0o711 {
		t.Fatal("no directory d")
	}
	for name, body := range bodies {
		i, ok := x.Lookup(dir, strings.TrimPrefix(name, "./d/"))
		off, size, isFile := x.Body(i)
		sum, _ := x.BodyDigest(i)
		if !ok || !isFile || !bytes.Equal(stream[off:off+size], body) || sum != sha256.Sum256(body) {
			t.Errorf("%s: found %v, %d bytes, digest right %v", name, ok, size, sum == sha256.Sum256(body))
		}
	}
	decodeAll(t, x, blob, stream)
}

func decodeAll(t *testing.T, x *Index, blob, stream []byte) {
	t.Helper()
	d, err := NewDecoder(1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for n := range x.Frames() {
		f := x.Frame(n)
		got, err := d.DecodeFrame(make([]byte, 0, f.Plain), blob[f.Offset:f.Offset+int64(f.Length)], f)
		if err != nil || !bytes.Equal(got, stream[f.Stream:f.Stream+int64(f.Plain)]) {
			t.Fatalf("frame %d: %v", n, err)
		}
		if x.FrameFor(f.Stream) != n || x.FrameFor(f.Stream+int64(f.Plain)-1) != n {
			t.Errorf("frame %d is not found by its bytes", n)
		}
	}
}

func TestFramesAreCutAtFileBoundaries(t *testing.T) {
	stream, _ := mixed(t)
	blob, _ := encode(t, stream, 2)
	x := openBlob(t, blob, nil)
	for i := Inode(1); int(i) <= x.Len(); i++ {
		off, size, ok := x.Body(i)
		if !ok || size == 0 || size > MaxFrame-512 {
			continue
		}
		if x.FrameFor(off) != x.FrameFor(off+size-1) {
			t.Errorf("inode %d: a file of %d bytes lies in two frames", i, size)
		}
	}
}

func TestThePlainZstdDecoderSeesThePlainTar(t *testing.T) {
	if _, err := exec.LookPath("zstd"); err != nil {
		t.Skip("skipped: no zstd program here")
	}
	stream, _ := mixed(t)
	blob, _ := encode(t, stream, 2)
	cmd := exec.Command("zstd", "-dc")
	cmd.Stdin = bytes.NewReader(blob)
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, stream) {
		t.Fatalf("zstd -dc gave %d bytes of %d: %v", len(out), len(stream), err)
	}
}

func TestAWriterThatFailsStopsTheEncoder(t *testing.T) {
	stream, _ := mixed(t)
	_, err := Encode(&failing{after: 300 << 10}, bytes.NewReader(stream), Options{Jobs: 2})
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, fmt.Errorf("disk full")
	}
	return len(p), nil
}

func TestAnEmptyStreamIsAnEmptyLayer(t *testing.T) {
	blob, s := encode(t, nil, 1)
	x := openBlob(t, blob, s.Annotations())
	if x.Len() != 1 || x.Frames() != 0 || !x.Implied(Root) || x.FrameFor(0) != -1 {
		t.Errorf("%d inodes, %d frames", x.Len(), x.Frames())
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestMemoryDoesNotGrowWithTheBodies(t *testing.T) {
	const size = 256 << 20
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: size}); err != nil {
		t.Fatal(err)
	}
	stream := io.MultiReader(&head, io.LimitReader(zeros{}, size), bytes.NewReader(make([]byte, 1024)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Encode(io.Discard, stream, Options{Jobs: 2}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 48<<20 {
		t.Errorf("a body of %d MiB took %d MiB", size>>20, n>>20)
	}
}

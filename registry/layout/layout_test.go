package layout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/registry/durable/faultfs"
	"rhizome/registry/layout"
	"rhizome/registry/registrytest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/errdef"
)

var (
	_ oras.Target      = (*layout.Layout)(nil)
	_ content.Untagger = (*layout.Layout)(nil)
)

func open(t *testing.T) *layout.Layout {
	t.Helper()
	l, err := layout.Open(t.TempDir(), layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func flip(t *testing.T, l *layout.Layout, d ocispec.Descriptor) {
	t.Helper()
	path, err := l.Path(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOrasCopiesStraightIntoTheLayoutAndOutOfIt(t *testing.T) {
	ctx := context.Background()
	ours, back := open(t), open(t)
	image := registrytest.Cluster(t, ours, 1)
	if err := ours.Tag(ctx, image, "web:1"); err != nil {
		t.Fatal(err)
	}
	theirs, err := oci.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oras.Copy(ctx, ours, "web:1", theirs, "x", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	got, err := oras.Copy(ctx, theirs, "x", back, "web:2", oras.DefaultCopyOptions)
	if err != nil || got.Digest != image.Digest {
		t.Fatalf("it came back as %s, %v", got.Digest, err)
	}
	if err := back.Complete(ctx, image); err != nil {
		t.Error(err)
	}
}

func TestARottenBlobIsNeverReadAsGood(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	good := bytes.Repeat([]byte("layer"), 100_000)
	d := registrytest.Blob(t, l, "application/octet-stream", good)
	flip(t, l, d)
	var corrupt *layout.CorruptError
	if err := l.Verify(ctx, d); !errors.As(err, &corrupt) {
		t.Errorf("a flipped bit verifies with %v", err)
	}
	if err := l.Push(ctx, d, bytes.NewReader(good)); err != nil {
		t.Errorf("pushing the right bytes: %v", err)
	}
	if err := l.Verify(ctx, d); err != nil {
		t.Errorf("after the push: %v", err)
	}
	path, _ := l.Path(d.Digest)
	if err := os.Truncate(path, d.Size-1); err != nil {
		t.Fatal(err)
	}
	if ok, _ := l.Exists(ctx, d); ok {
		t.Error("a blob one byte short counts as here")
	}
	if _, err := l.Open(ctx, d); !errors.As(err, &corrupt) {
		t.Errorf("a blob one byte short opens with %v", err)
	}
}

func TestARottenManifestCountsAsMissing(t *testing.T) {
	l := open(t)
	d := registrytest.JSON(t, l, ocispec.MediaTypeImageManifest, ocispec.Manifest{})
	flip(t, l, d)
	if ok, err := l.Exists(context.Background(), d); ok || err != nil {
		t.Errorf("Exists gives %v, %v", ok, err)
	}
}

func TestOtherBytesThanPromisedAreRefusedAndLeaveNothing(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	for name, body := range map[string]string{"other": "abd", "longer": "abcd", "shorter": "ab"} {
		d := ocispec.Descriptor{MediaType: "x/y", Digest: digest.FromString("abc"), Size: 3}
		var corrupt *layout.CorruptError
		if err := l.Push(ctx, d, strings.NewReader(body)); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if ok, _ := l.Exists(ctx, d); ok {
			t.Errorf("%s: it was stored", name)
		}
	}
	failed := errors.New("the producer failed")
	_, err := l.Ingest(ctx, "x/y", func(w io.Writer) error {
		w.Write([]byte("half"))
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("a failing producer gives %v", err)
	}
	assertNoLeftovers(t, l)
}

func assertNoLeftovers(t *testing.T, l *layout.Layout) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(l.Root(), "ingest"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestManifestsThatNoRegistryTakesAreNotWritten(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	big := append([]byte(`{"manifests":[],"x":"`), bytes.Repeat([]byte("a"), layout.MaxManifest)...)
	big = append(big, `"}`...)
	d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(big), Size: int64(len(big))}
	if err := l.Push(ctx, d, bytes.NewReader(big)); err == nil || !strings.Contains(err.Error(), "spread the nodes") {
		t.Errorf("a manifest of %d bytes: %v", len(big), err)
	}
	d.Size = 100 << 20
	if _, err := l.ReadAll(ctx, d); err == nil {
		t.Error("a manifest of 100 MiB was read")
	}
}

func TestHalfAnImageGetsNoName(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	image := registrytest.Cluster(t, l, 1)
	blobs, err := l.Blobs()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		path, _ := l.Path(b.Digest)
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
		var incomplete *layout.IncompleteError
		if err := l.Tag(ctx, image, "web:1"); !errors.As(err, &incomplete) {
			t.Errorf("without %s: %v", b.Digest, err)
		}
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Tag(ctx, image, "web:1"); err != nil {
		t.Error(err)
	}
}

func TestNamesAreFoundDroppedAndMissed(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	a, b := registrytest.Cluster(t, l, 1), registrytest.Cluster(t, l, 2)
	for _, step := range []struct {
		d    ocispec.Descriptor
		name string
	}{{a, "web:1"}, {b, "web:2"}, {b, "web:1"}} {
		if err := l.Tag(ctx, step.d, step.name); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.Resolve(ctx, "web:1")
	if err != nil || got.Digest != b.Digest || got.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("web:1 is %v, %v", got, err)
	}
	if got, err := l.Resolve(ctx, a.Digest.String()); err != nil || got.MediaType != ocispec.MediaTypeImageIndex || got.Size != a.Size {
		t.Errorf("by digest: %v, %v", got, err)
	}
	if err := l.Untag(ctx, "web:1"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{l.Untag(ctx, "web:1"), second(l.Resolve(ctx, "web:1"))} {
		if !errors.Is(err, errdef.ErrNotFound) {
			t.Errorf("a dropped name gives %v", err)
		}
	}
}

// Of a manifest that a file handle names, half the digest is known.
func TestABlobIsFoundByAPartOfItsDigest(t *testing.T) {
	l := open(t)
	image := registrytest.Cluster(t, l, 1)
	begins := func(part string) func(digest.Digest) bool {
		return func(d digest.Digest) bool { return strings.HasPrefix(d.Encoded(), part) }
	}
	if d, ok, err := l.Find(begins(image.Digest.Encoded()[:32])); err != nil || !ok || d != image.Digest {
		t.Errorf("found %s, %t, %v", d, ok, err)
	}
	if d, ok, err := l.Find(begins("no digest")); err != nil || ok {
		t.Errorf("of what is not there: %s, %t, %v", d, ok, err)
	}
}

func TestNoTagIsLostBetweenManyWriters(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			l, err := layout.Open(dir, layout.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			d := registrytest.Index(t, l)
			for i := range each {
				if err := l.Tag(ctx, d, fmt.Sprintf("w%d:%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l, err := layout.Open(dir, layout.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if tags, err := l.Tags(ctx); err != nil || len(tags) != writers*each {
		t.Errorf("%d of %d tags survived, %v", len(tags), writers*each, err)
	}
}

func second[T any](_ T, err error) error { return err }

// At every call that changes the disk, the disk is full or the machine dies.
// What had a name before must be whole afterwards, and the index readable.
func TestAnyFaultLeavesTheImagesThatHadNamesWhole(t *testing.T) {
	ctx := context.Background()
	work := func(fsys *faultfs.FS, dir string) error {
		l, err := layout.Open(dir, layout.Options{FS: fsys})
		if err != nil {
			return err
		}
		d, err := l.Ingest(ctx, ocispec.MediaTypeImageIndex, func(w io.Writer) error {
			_, err := w.Write([]byte(`{"schemaVersion":2,"manifests":[]}`))
			return err
		})
		if err != nil {
			return err
		}
		return l.Tag(ctx, d, "new:1")
	}
	count := &faultfs.FS{}
	if err := work(count, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, crash := range []bool{false, true} {
		for at := 1; at <= count.Calls(); at++ {
			t.Run(fmt.Sprintf("call %d, crash %v", at, crash), func(t *testing.T) {
				dir := t.TempDir()
				before, err := layout.Open(dir, layout.Options{})
				if err != nil {
					t.Fatal(err)
				}
				image := registrytest.Index(t, before)
				if err := before.Tag(ctx, image, "old:1"); err != nil {
					t.Fatal(err)
				}
				workErr := work(&faultfs.FS{At: at, Crash: crash}, dir)
				checkAfterFault(t, dir, image, workErr)
			})
		}
	}
}

func checkAfterFault(t *testing.T, dir string, image ocispec.Descriptor, workErr error) {
	t.Helper()
	ctx := context.Background()
	l, err := layout.Open(dir, layout.Options{})
	if err != nil {
		t.Fatalf("after %v: %v", workErr, err)
	}
	got, err := l.Resolve(ctx, "old:1")
	if err != nil || got.Digest != image.Digest {
		t.Errorf("after %v the old name is %s, %v", workErr, got.Digest, err)
	}
	tags, err := l.Tags(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, tag := range tags {
		if err := l.Verify(ctx, tag.Descriptor); err != nil {
			t.Errorf("after %v: %q: %v", workErr, tag.Name, err)
		}
	}
}

// A crash while the layout is made for the first time leaves none, or one that
// works.
func TestACrashAtTheFirstOpeningIsMendedByTheNext(t *testing.T) {
	count := &faultfs.FS{}
	if _, err := layout.Open(t.TempDir(), layout.Options{FS: count}); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= count.Calls(); at++ {
		dir := t.TempDir()
		if _, err := layout.Open(dir, layout.Options{FS: &faultfs.FS{At: at, Crash: true}}); err == nil {
			t.Errorf("call %d: the crash went unnoticed", at)
		}
		l, err := layout.Open(dir, layout.Options{})
		if err != nil {
			t.Fatalf("call %d: %v", at, err)
		}
		if err := l.Tag(context.Background(), registrytest.Index(t, l), "a:1"); err != nil {
			t.Errorf("call %d: %v", at, err)
		}
	}
}

func TestACollectionPutsBackWhatSomebodyReliesOn(t *testing.T) {
	ctx := context.Background()
	l := open(t)
	d := registrytest.Blob(t, l, "x/y", []byte("abc"))
	before := time.Now().Add(-time.Hour)
	if gone, err := l.Collect(d.Digest, before); gone || err != nil {
		t.Errorf("a young blob: collected %v, %v", gone, err)
	}
	if ok, err := l.Exists(ctx, d); !ok || err != nil {
		t.Errorf("it is there: %v, %v", ok, err)
	}
	if gone, err := l.Collect(d.Digest, time.Now().Add(time.Hour)); !gone || err != nil {
		t.Errorf("an old blob: collected %v, %v", gone, err)
	}
	assertNoLeftovers(t, l)
}

func TestAnotherLayoutVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	data, _ := json.Marshal(ocispec.ImageLayout{Version: "2.0.0"})
	if err := os.WriteFile(filepath.Join(dir, ocispec.ImageLayoutFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := layout.Open(dir, layout.Options{}); err == nil || !strings.Contains(err.Error(), `"2.0.0"`) {
		t.Errorf("it opens with %v", err)
	}
}

// The law: any bytes are sniffed and read without a panic, and only documents
// of a known type name other blobs.
func FuzzManifests(f *testing.F) {
	f.Add([]byte(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:x","size":-1}]}`))
	f.Add([]byte(`{"config":{"digest":"a"},"layers":[{}]}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind := layout.SniffMediaType(data)
		next, err := layout.Successors(kind, data)
		if kind == "" && len(next) > 0 {
			t.Errorf("a document of no kind names %v", next)
		}
		if err == nil && layout.CheckDescriptors(ocispec.Descriptor{}, next) == nil {
			for _, d := range next {
				if d.Size < 0 || d.Digest.Validate() != nil {
					t.Errorf("it passes %+v", d)
				}
			}
		}
	})
}

package layer

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/registry/layerfmt"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

var (
	long155 = strings.Repeat("p", 80) + "/" + strings.Repeat("q", 70) + "/" + strings.Repeat("n", 99)
	long256 = strings.Repeat("p", 120) + "/" + strings.Repeat("n", 130)
)

// sample has every kind of entry that a layer carries.
func sample(t testing.TB) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for _, e := range []tree.Entry{
		{Path: ".", Kind: tree.Dir, Mode: 0o755},
		{Path: "bin/zsh", Kind: tree.File, Mode: 0o4755, UID: 3, GID: 4, Body: tree.Text("#!/bin/sh\n"), Xattrs: map[string]string{"security.capability": "\x01\x00\x00\x02", "user.b": "x"}, Flags: "schg,uarch"},
		{Path: "bin/ash", Link: "bin/zsh"},
		{Path: "dev/null", Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3},
		{Path: "dev/sda", Kind: tree.BlockDevice, Mode: 0o660, Major: 8, GID: 6},
		{Path: "run/fifo", Kind: tree.Fifo, Mode: 0o600},
		{Path: "lib", Kind: tree.Symlink, Mode: 0o777, Target: "../../usr/lib"},
		{Path: "etc", Kind: tree.Dir, Mode: 0o750, Opaque: true},
		{Path: "etc/gone", Kind: tree.Whiteout},
		{Path: "etc/empty", Kind: tree.File, Mode: 0o644},
		{Path: "etc/Főtanúsítvány", Kind: tree.File, Mode: 0o644, Body: tree.Text("utf-8")},
		{Path: "home/big-uid", Kind: tree.Dir, Mode: 0o1777, UID: 4000000000, GID: 3000000},
		{Path: long155, Kind: tree.File, Mode: 0o644, Body: tree.Text("split"), Flags: "schg"},
		{Path: long256, Kind: tree.File, Mode: 0o644, Body: tree.Text("pax")},
		{Path: "big", Kind: tree.File, Mode: 0o600, Body: tree.Bytes(bytes.Repeat([]byte("0123456789abcdef"), 3<<16))},
	} {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func tarOf(t testing.TB, tr *tree.Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteTar(&b, tr, epoch); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestTheTarIsTheSameForEver(t *testing.T) {
	sum := sha256.Sum256(tarOf(t, sample(t)))
	// This changes when a byte of the tar does: every layer of every recipe
	// then gets a new DiffID, and that must be meant.
	const want = "72d9457cebc671e071c28e8f550cded09c49e8ef2c6bbd5328a33cd05aaa16a0"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("the sample's DiffID is %s and was %s", got, want)
	}
}

func TestWriteGivesTheDiffIDOfTheTarAndOneBlobForAnyJobs(t *testing.T) {
	want := sha256.Sum256(tarOf(t, sample(t)))
	var first []byte
	for _, jobs := range []int{1, 3} {
		var b bytes.Buffer
		s, err := Write(&b, sample(t), epoch, jobs)
		if err != nil || s.DiffID.Encoded() != hex.EncodeToString(want[:]) {
			t.Fatalf("%d jobs: %v, DiffID %s", jobs, err, s.DiffID)
		}
		if first != nil && !bytes.Equal(first, b.Bytes()) {
			t.Errorf("%d jobs gave another blob", jobs)
		}
		first = b.Bytes()
	}
}

func TestALayerReadsBackAsTheTreeItWas(t *testing.T) {
	in := sample(t)
	var b bytes.Buffer
	s, err := Write(&b, in, epoch, 2)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ReadTree(bytes.NewReader(b.Bytes()), int64(b.Len()), s.Annotations())
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, in, out)
	tarFile := filepath.Join(t.TempDir(), "t.tar")
	if err := os.WriteFile(tarFile, tarOf(t, in), 0o600); err != nil {
		t.Fatal(err)
	}
	fromTar, err := tree.FromTar(tarFile)
	if err != nil {
		t.Fatal(err)
	}
	compareTrees(t, in, fromTar)
	if !bytes.Equal(tarOf(t, out), tarOf(t, fromTar)) || !bytes.Equal(tarOf(t, out), tarOf(t, in)) {
		t.Error("what was read writes another tar")
	}
}

func compareTrees(t *testing.T, want, got *tree.Tree) {
	t.Helper()
	if want.Len() != got.Len() {
		t.Errorf("%d entries, want %d", got.Len(), want.Len())
	}
	for _, w := range want.Entries() {
		g := got.Lookup(w.Path)
		if g == nil {
			t.Errorf("%q is missing", w.Path)
			continue
		}
		if content(t, w) != content(t, g) || !maps.Equal(w.Xattrs, g.Xattrs) {
			t.Errorf("%q: other content or xattrs %q", w.Path, g.Xattrs)
		}
		a, b := *w, *g
		a.Body, b.Body, a.Xattrs, b.Xattrs = nil, nil, nil, nil
		if a.Path != b.Path || a.Kind != b.Kind || a.Mode != b.Mode && a.Kind != tree.Whiteout || a.UID != b.UID || a.GID != b.GID || a.Flags != b.Flags ||
			a.Target != b.Target || a.Link != b.Link || a.Opaque != b.Opaque || a.Implied != b.Implied || a.Major != b.Major || a.Minor != b.Minor {
			t.Errorf("%q:\n got %+v\nwant %+v", w.Path, b, a)
		}
	}
}

func content(t *testing.T, e *tree.Entry) string {
	t.Helper()
	if e.Body == nil {
		return ""
	}
	r, err := e.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestNamesStandInUstarWhereTheyFit(t *testing.T) {
	pax := map[string]map[string]string{}
	r := tar.NewReader(bytes.NewReader(tarOf(t, sample(t))))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pax[h.Name] = h.PAXRecords
	}
	if _, ok := pax[long155]["path"]; ok || pax[long155]["SCHILY.fflags"] != "schg" {
		t.Errorf("a name that the prefix holds needs no PAX path: %q", pax[long155])
	}
	if _, ok := pax[long256]["path"]; !ok {
		t.Error("a name that ustar cannot hold is missing from the PAX records")
	}
	if len(pax["bin/ash"]) == 0 || len(pax["dev/null"]) != 0 {
		t.Errorf("bin/ash %v, dev/null %v", pax["bin/ash"], pax["dev/null"])
	}
}

func TestGNUTarAndBsdtarReadTheTar(t *testing.T) {
	for _, prog := range []string{"tar", "bsdtar"} {
		bin, err := exec.LookPath(prog)
		if err != nil {
			t.Skipf("skipped: no %s here", prog)
		}
		cmd := exec.Command(bin, "-tf", "-")
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		cmd.Stdin = bytes.NewReader(tarOf(t, sample(t)))
		out, err := cmd.CombinedOutput()
		for _, name := range []string{"./", "bin/ash", "dev/sda", long155, long256, "etc/.wh..wh..opq", "etc/.wh.gone"} {
			if !strings.Contains(string(out), name+"\n") {
				t.Errorf("%s: no %q (%v) in\n%s", prog, name, err, out)
			}
		}
	}
}

func TestWhatNoLayerCarriesIsRefused(t *testing.T) {
	for want, e := range map[string]tree.Entry{
		"whiteouts": {Path: "a/.wh.b", Kind: tree.File},
		"UTF-8":     {Path: "a\xff", Kind: tree.File},
		"belongs":   {Path: "etc/sda", Kind: tree.BlockDevice},
		"fit a tar": {Path: "dev/x", Kind: tree.CharDevice, Major: 1 << 30},
		"shorter":   {Path: "lying", Kind: tree.File, Body: lying{}},
	} {
		tr := tree.New()
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
		_, err := Write(io.Discard, tr, epoch, 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", e.Path, err, want)
		}
	}
	if err := WriteTar(io.Discard, tree.New(), time.Unix(-1, 0)); err == nil {
		t.Error("an epoch before 1970 was taken")
	}
}

type lying struct{}

func (lying) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("short")), nil }
func (lying) Size() int64                  { return 50 }

func TestReadTreeKnowsAForeignBlob(t *testing.T) {
	raw := tarOf(t, sample(t))
	if _, err := ReadTree(bytes.NewReader(raw), int64(len(raw)), nil); err == nil || !strings.Contains(err.Error(), layerfmt.ErrNoIndex.Error()) {
		t.Errorf("got %v", err)
	}
}

// A record's key ends at its first "=": the attribute would come back under
// another name, with another value.
func TestAnAttributeWhoseNameNoTarCarriesIsRefused(t *testing.T) {
	tr := tree.New()
	if err := tr.Add(tree.Entry{Path: "a", Kind: tree.File, Xattrs: map[string]string{"user.x=y": "z"}}); err != nil {
		t.Fatal(err)
	}
	_, err := Write(io.Discard, tr, time.Unix(0, 0), 1)
	if err == nil || !strings.Contains(err.Error(), `"a": the name of the extended attribute "user.x=y" holds a "="`) {
		t.Errorf("got %v", err)
	}
}

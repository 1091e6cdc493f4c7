package layerfmt

import (
	"archive/tar"
	"bytes"
	"errors"
	"testing"
)

// failsAt is a disk, or a registry, that fails at one place.
type failsAt struct {
	r   *bytes.Reader
	at  int64
	err error
}

func (f failsAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return 0, f.err
	}
	return f.r.ReadAt(p, off)
}

// TestATailThatIsNotTheBlobsIsRefused: every way in which the end of a blob can
// be short, long, another's or out of reach.
func TestATailThatIsNotTheBlobsIsRefused(t *testing.T) {
	blob, sum := tailBlob(t, "a")
	other, otherSum := tailBlob(t, "another")
	down := errors.New("the registry is down")
	for _, test := range []struct {
		what string
		blob []byte
		ann  map[string]string
	}{
		{"one byte short", blob[:len(blob)-1], sum.Annotations()},
		{"one byte short at the front", blob[1:], sum.Annotations()},
		{"one byte long", append(bytes.Clone(blob), 0), sum.Annotations()},
		{"another blob", other, sum.Annotations()},
		{"the annotations of another blob", blob, otherSum.Annotations()},
		{"two blobs, one behind the other", append(bytes.Clone(blob), other...), nil},
		{"nothing", nil, nil},
		{"zeros", make([]byte, len(blob)), nil},
		{"a gzip", append([]byte{0x1f, 0x8b, 8}, blob[:60]...), nil},
	} {
		index, err := ReadTail(bytes.NewReader(test.blob), int64(len(test.blob)), test.ann)
		if err == nil || index != nil {
			t.Errorf("%s: %d bytes of index, %v", test.what, len(index), err)
		} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNoIndex) {
			t.Errorf("%s: %v is neither ErrCorrupt nor ErrNoIndex", test.what, err)
		}
	}
	for _, at := range []int64{int64(len(blob)) - 1, int64(len(blob)) - seekFooterLen - 1, sum.IndexOffset + 9} {
		_, err := ReadTail(failsAt{bytes.NewReader(blob), at, down}, int64(len(blob)), sum.Annotations())
		if !errors.Is(err, down) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNoIndex) {
			t.Errorf("what fails at byte %d is not what is said: %v", at, err)
		}
	}
	if _, err := ReadTail(bytes.NewReader(blob), int64(len(blob))+100, sum.Annotations()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a blob that is shorter than promised: %v", err)
	}
	if _, err := ReadTail(bytes.NewReader(blob), int64(len(blob)), sum.Annotations()); err != nil {
		t.Errorf("the blob itself: %v", err)
	}
}

func tailBlob(t *testing.T, body string) ([]byte, Summary) {
	t.Helper()
	return encode(t, makeTar(t, map[string][]byte{"f": bytes.Repeat([]byte(body), 1000)}, tar.Header{Typeflag: tar.TypeReg, Name: "f"}), 1)
}

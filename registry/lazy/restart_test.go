package lazy

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// halfFetched is a blob of eight pieces of which a set has fetched four.
func halfFetched(t *testing.T) (s *Set, f *far, dir string) {
	t.Helper()
	f = &far{data: make([]byte, 7*Piece+9)}
	random := rand.NewChaCha8([32]byte{2})
	if _, err := random.Read(f.data); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	s, _ = setIn(t, f, Options{Dir: dir})
	for _, piece := range []int64{7, 0, 3, 4} {
		readAndCompare(t, s, f, piece)
	}
	return s, f, dir
}

func readAndCompare(t *testing.T, s *Set, f *far, piece int64) {
	t.Helper()
	p := make([]byte, 9)
	if _, err := s.Blob(describe(f.data).Digest).ReadAt(p, piece*Piece); err != nil || !bytes.Equal(p, f.data[piece*Piece:][:9]) {
		t.Fatalf("piece %d: %v", piece, err)
	}
}

// leftBehind is the folder as a process leaves it that is killed now.
func leftBehind(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// finish makes a new set in a folder, fills it and says what that fetched.
func finish(t *testing.T, f *far, dir string) (calls int64) {
	t.Helper()
	before := f.calls.Load()
	s, path := setIn(t, f, Options{Dir: dir})
	if err := s.Fill(context.Background(), []ocispec.Descriptor{describe(f.data)}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.data) {
		t.Errorf("the blob: %d bytes, %v", len(got), err)
	}
	return f.calls.Load() - before
}

func TestWhatWasFetchedIsNotFetchedAgainAfterARestart(t *testing.T) {
	s, f, dir := halfFetched(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if calls := finish(t, f, dir); calls != 4 {
		t.Errorf("%d of 8 pieces were fetched after a restart, and 4 were there", calls)
	}
}

func TestWhatAKillOrAPowerCutLostIsFetchedAgainAndNothingElse(t *testing.T) {
	for what, test := range map[string]struct {
		harm  func(t *testing.T, blob, ledger string)
		calls int64
	}{
		"killed": {func(*testing.T, string, string) {}, 4},
		"a piece that never reached the disk": {func(t *testing.T, blob, _ string) {
			overwrite(t, blob, 3*Piece, make([]byte, Piece))
		}, 5},
		"a record torn in the middle": {func(t *testing.T, _, ledger string) {
			shorten(t, ledger, 3*recordLen+17)
		}, 5},
		"records that never reached the disk": {func(t *testing.T, _, ledger string) {
			overwrite(t, ledger, recordLen, make([]byte, 2*recordLen))
		}, 6},
		"no ledger":   {func(t *testing.T, _, ledger string) { remove(t, ledger) }, 8},
		"no blob":     {func(t *testing.T, blob, _ string) { remove(t, blob) }, 8},
		"half a blob": {func(t *testing.T, blob, _ string) { shorten(t, blob, 4*Piece) }, 6},
	} {
		t.Run(what, func(t *testing.T) {
			_, f, dir := halfFetched(t)
			dir = leftBehind(t, dir)
			ledgers, err := filepath.Glob(filepath.Join(dir, "lazy-*.map"))
			if err != nil || len(ledgers) != 1 {
				t.Fatal(ledgers, err)
			}
			test.harm(t, strings.TrimSuffix(ledgers[0], ".map"), ledgers[0])
			if calls := finish(t, f, dir); calls != test.calls {
				t.Errorf("%d pieces were fetched, want %d", calls, test.calls)
			}
		})
	}
}

// TestTwoProcessesGrowOneBlobApart: the second cannot use what the first is
// writing, and must not spoil it.
func TestTwoProcessesGrowOneBlobApart(t *testing.T) {
	s, f, dir := halfFetched(t)
	if calls := finish(t, f, dir); calls != 8 {
		t.Errorf("%d pieces were fetched, want all 8", calls)
	}
	if err := os.Remove(filepath.Join(dir, "blob")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if calls := finish(t, f, dir); calls != 4 {
		t.Errorf("%d pieces were fetched by the first one's successor, want 4", calls)
	}
}

func FuzzReadLedger(f *testing.F) {
	f.Add(make([]byte, 3*recordLen+1), int64(2))
	f.Fuzz(func(t *testing.T, data []byte, pieces int64) {
		claims := readLedger(data, pieces)
		if len(claims) > len(data)/recordLen {
			t.Errorf("%d claims from %d bytes", len(claims), len(data))
		}
		for i := range claims {
			if int64(i) >= pieces {
				t.Errorf("a claim of piece %d of %d", i, pieces)
			}
		}
	})
}

func overwrite(t *testing.T, name string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

func shorten(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

package dists

import (
	"io"
	"os"
	"os/exec"
	"testing"
)

// RHIZOME_TXZ names a real set, such as FreeBSD's base.txz.
func BenchmarkDecompress(b *testing.B) {
	file := os.Getenv("RHIZOME_TXZ")
	if file == "" {
		b.Skip("skipped: RHIZOME_TXZ names no set")
	}
	b.Run("xz", func(b *testing.B) {
		if _, err := exec.LookPath("xz"); err != nil {
			b.Skip("skipped: xz is not installed")
		}
		for b.Loop() {
			if err := decompress(b.Context(), file, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			if err := decompressHere(b.Context(), file, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package layerfmt

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"
)

func BenchmarkEncodeOfATinyLayer(b *testing.B) {
	stream := makeTar(b, map[string][]byte{"etc/hosts": []byte("x")}, tar.Header{Typeflag: tar.TypeReg, Name: "etc/hosts"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(io.Discard, bytes.NewReader(stream), Options{Jobs: 2}); err != nil {
			b.Fatal(err)
		}
	}
}

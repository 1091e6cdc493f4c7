package main

import (
	"bytes"
	"testing"
)

// A result that follows the line that changes used to be written behind it:
// "pushing web:1: 3 of 3 blobssha256:...".
func TestAResultStandsOnALineOfItsOwn(t *testing.T) {
	var screen bytes.Buffer
	term := &terminal{err: &screen, style: "live", width: 20}
	out := &results{Writer: &screen, before: term.close}
	term.changing("pushing\tweb:1: \x1b[31m3 of 3 blobs")
	if _, err := out.Write([]byte("sha256:1\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := screen.String(), "pushing web:1:  [31\r\x1b[Ksha256:1\n"; got != want {
		t.Errorf("the screen shows %q, want %q", got, want)
	}
}

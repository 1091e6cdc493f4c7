package dhcp_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func mustAddr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// readHex reads a captured packet: hexadecimal lines under a comment that says
// who sent it.
func readHex(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	p, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

func fixtures(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/packets/*.hex")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captured packets: %v", err)
	}
	return names
}

func fixturePackets(t testing.TB) [][]byte {
	var all [][]byte
	for _, name := range fixtures(t) {
		all = append(all, readHex(t, name))
	}
	return all
}

// findOption returns an option's bytes where they lie in a packet.
func findOption(t testing.TB, p []byte, code byte) []byte {
	t.Helper()
	cookie := []byte{99, 130, 83, 99}
	for at := bytes.Index(p, cookie) + 4; at+1 < len(p) && p[at] != 255; {
		if p[at] == 0 {
			at++
			continue
		}
		end := at + 2 + int(p[at+1])
		if p[at] == code {
			return p[at+2 : end]
		}
		at = end
	}
	t.Fatalf("the packet has no option %d", code)
	return nil
}

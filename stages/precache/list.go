package precache

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxList is how long a list may be in bytes.
const maxList = 16 << 20

// ReadList reads a list as "rhizome precache learn" writes it: one absolute
// path a line, hottest first; empty lines and those that begin with # say
// nothing.
func ReadList(r io.Reader) ([]string, error) {
	var out []string
	lines := bufio.NewScanner(io.LimitReader(r, maxList))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if !strings.HasPrefix(line, "/") {
			return nil, fmt.Errorf("line %d: %.80q is no absolute path", n, line)
		}
		out = append(out, line)
	}
	return out, lines.Err()
}

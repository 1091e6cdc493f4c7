package imagediff

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"rhizome/serve/rootfs"
)

const (
	// dpkgStatus is the list of installed packages of Debian (dpkg(1), "FILES").
	dpkgStatus = "/var/lib/dpkg/status"
	// maxStatus bounds the list that is read, in bytes: 100,000 packages are
	// far below.
	maxStatus = 256 << 20
	// maxStatusLine is the longest line that is taken; descriptions and lists
	// of conffiles are folded into many.
	maxStatusLine = 1 << 20
)

// comparePackages compares the installed packages, where the list differs.
func comparePackages(old, new *rootfs.View) ([]value, error) {
	a, err := bodyDigest(old, dpkgStatus)
	if err != nil {
		return nil, err
	}
	b, err := bodyDigest(new, dpkgStatus)
	if err != nil || a == b {
		return nil, err
	}
	before, err := installed(old, a)
	if err != nil {
		return nil, err
	}
	after, err := installed(new, b)
	return compareMaps(before, after), err
}

// installed reads the list of a root; sum is "" where it has none.
func installed(v *rootfs.View, sum string) (map[string]string, error) {
	if sum == "" {
		return map[string]string{}, nil
	}
	r, err := v.Open(dpkgStatus)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > maxStatus {
		return nil, fmt.Errorf("reading %q: it has %d bytes, more than any list of packages", dpkgStatus, r.Size())
	}
	m, err := readStatus(r)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", dpkgStatus, err)
	}
	return m, nil
}

// readStatus reads versions by "name:architecture" out of dpkg's status: the
// stanzas of deb822(5) whose Status ends with "installed" (dpkg-query(1)).
func readStatus(r io.Reader) (map[string]string, error) {
	found := map[string]string{}
	stanza := map[string]string{}
	end := func() {
		if name := stanza["package"]; name != "" && strings.HasSuffix(stanza["status"], " installed") {
			found[name+":"+stanza["architecture"]] = stanza["version"]
		}
		clear(stanza)
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), maxStatusLine)
	for lines.Scan() {
		line := lines.Text()
		if strings.TrimSpace(line) == "" {
			end()
			continue
		}
		note(stanza, line)
	}
	end()
	return found, lines.Err()
}

// note keeps a line's field, if it is one that is asked for.
func note(stanza map[string]string, line string) {
	name, text, ok := strings.Cut(line, ":")
	if !ok || line[0] == ' ' || line[0] == '\t' {
		return
	}
	switch name = strings.ToLower(name); name {
	case "package", "status", "version", "architecture":
		stanza[name] = strings.TrimSpace(text)
	}
}

package freebsd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Source is a FreeBSD source tree and what is to be built of it.
type Source struct {
	// Dir is the tree's absolute path.
	Dir string
	// Arch is "amd64" or "arm64", as OCI names it.
	Arch string
	// Revision and Branch are those of sys/conf/newvers.sh: "15.1" and
	// "RELEASE-p1".
	Revision, Branch string
}

// marks are files that every FreeBSD source tree of the last ten years has.
var marks = []string{"Makefile", "Makefile.inc1", "sys/conf/newvers.sh", "etc/master.passwd", "etc/group"}

// Open checks that a folder is a FreeBSD source tree that can be built for an
// architecture.
func Open(dir, arch string) (Source, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Source{}, fmt.Errorf("finding the FreeBSD source tree %q: %w", dir, err)
	}
	s := Source{Dir: abs, Arch: arch}
	for _, m := range append(marks, "sys/"+s.target()+"/conf/GENERIC") {
		if _, err := os.Stat(filepath.Join(abs, m)); err != nil {
			return Source{}, fmt.Errorf("%q is not a FreeBSD source tree: it has no %s; let source.src name a checkout of FreeBSD's src repository, such as /usr/src", dir, m)
		}
	}
	s.Revision, s.Branch, err = newvers(filepath.Join(abs, "sys/conf/newvers.sh"))
	return s, err
}

var assignment = regexp.MustCompile(`(?m)^(REVISION|BRANCH)="([^"]*)"`)

func newvers(file string) (revision, branch string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", fmt.Errorf("reading the tree's version: %w", err)
	}
	v := map[string]string{}
	for _, m := range assignment.FindAllStringSubmatch(string(text), -1) {
		v[m[1]] = m[2]
	}
	if v["REVISION"] == "" {
		return "", "", fmt.Errorf("reading the tree's version: %q sets no REVISION", file)
	}
	return v["REVISION"], v["BRANCH"], nil
}

// Version is what uname -r will say, without a commit: "15.1-RELEASE-p1".
func (s Source) Version() string { return strings.TrimSuffix(s.Revision+"-"+s.Branch, "-") }

// target and targetArch are make's TARGET and TARGET_ARCH (build(7)).
func (s Source) target() string { return s.Arch }

func (s Source) targetArch() string {
	if s.Arch == "arm64" {
		return "aarch64"
	}
	return s.Arch
}

// ConfDir is where the tree keeps its kernel configurations.
func (s Source) ConfDir() string { return filepath.Join(s.Dir, "sys", s.target(), "conf") }

// SrcConf writes src.conf(5): an option a line, in order, so that the same
// set always gives the same bytes. An option both with and without, or one
// that make could not read, is refused.
func SrcConf(without, with []string) (string, error) {
	var lines []string
	seen := map[string]string{}
	for prefix, names := range map[string][]string{"WITHOUT_": without, "WITH_": with} {
		for _, n := range names {
			name := strings.ToUpper(strings.TrimPrefix(n, prefix))
			if !optionName.MatchString(name) {
				return "", fmt.Errorf("%q is not the name of a src.conf(5) option; names look like LIB32 or DEBUG_FILES", n)
			}
			if p, ok := seen[name]; ok && p != prefix {
				return "", fmt.Errorf("the option %q is both in \"with\" and in \"without\"; keep one", name)
			}
			if _, ok := seen[name]; !ok {
				lines = append(lines, prefix+name+"=yes\n")
			}
			seen[name] = prefix
		}
	}
	sortPaths(lines)
	return strings.Join(lines, ""), nil
}

var optionName = regexp.MustCompile(`^[A-Z0-9_]+$`)

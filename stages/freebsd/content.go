package freebsd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"rhizome/pipeline/tree"
)

// Absent is the identity of a path that the tree does not have.
const Absent = "absent"

// Content names what a source tree holds, path by path, by git object names
// (gitformat-pack, "object name"): a clean checkout, a checkout with local
// changes and an unpacked archive with the same files give the same names (but
// for files whose line ends git converts, such as those of Windows projects in
// contrib). Times, owners and where the tree lies have no part in them.
type Content struct {
	// List gives the entries of the tree's top folder.
	List []string
	// ID maps a path below the top to its object name, or Absent.
	ID func(path string) (string, error)
}

// Reader finds a tree's content quickly the second time.
type Reader struct {
	// State is a folder for what is remembered between runs; empty remembers
	// nothing.
	State string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Read names the content of a source tree, through git where the folder is the
// top of a checkout, and file by file otherwise.
func (r Reader) Read(ctx context.Context, s Source) (Content, error) {
	if isCheckout(s.Dir) {
		return r.readGit(ctx, s.Dir)
	}
	return r.readFiles(ctx, s.Dir)
}

func isCheckout(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ".git"))
	return err == nil
}

func (r Reader) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// stateFile names a file that remembers one tree.
func (r Reader) stateFile(dir, kind string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(r.State, hex.EncodeToString(sum[:8])+"."+kind)
}

// Select picks the identities of some paths, as inputs of a stage: "src:sys"
// to the object name of sys.
func (c Content) Select(paths []string) (map[string]string, error) {
	in := make(map[string]string, len(paths))
	for _, p := range paths {
		id, err := c.ID(p)
		if err != nil {
			return nil, fmt.Errorf("naming the content of %q in the source tree: %w", p, err)
		}
		in["src:"+p] = id
	}
	return in, nil
}

// unread are top-level entries that no build target reads.
var unread = []string{"CONTRIBUTING.md", "CODEOWNERS", "LOCKS", "MAINTAINERS", "README", "README.md", "RELNOTES", "UPDATING", "release", "targets"}

// WorldReads are the paths that buildworld and installworld read: everything
// but documents, hidden files and the release scripts.
func (c Content) WorldReads() []string {
	return slices.DeleteFunc(slices.Clone(c.List), func(name string) bool {
		return strings.HasPrefix(name, ".") || slices.Contains(unread, name)
	})
}

// DistributionReads are the paths that "make distribution" reads: files under
// /etc come from all over the userland, but of sys only the device hints.
func (c Content) DistributionReads(s Source) []string {
	paths := slices.DeleteFunc(c.WorldReads(), func(name string) bool { return name == "sys" })
	return append(paths, "sys/conf/newvers.sh", "sys/"+s.target()+"/conf/GENERIC.hints")
}

// KernelReads are the paths that buildkernel and installkernel read: the
// kernel itself, and the tools that kernel-toolchain makes of the tree.
func (c Content) KernelReads() []string {
	return []string{
		"Makefile", "Makefile.inc1", "Makefile.libcompat", "Makefile.sys.inc", "COPYRIGHT",
		"etc/group", "etc/master.passwd", "share/mk", "share/examples/etc", "sys",
		"tools/build", "usr.sbin/config", "usr.sbin/kldxref", "usr.bin/awk", "usr.bin/elfctl", "usr.bin/file2c",
		"usr.bin/gencat", "usr.bin/lex", "usr.bin/m4", "usr.bin/mkcsmapper", "usr.bin/xinstall", "usr.bin/yacc",
		"usr.sbin/nmtree", "cddl", "contrib/bmake", "contrib/byacc", "contrib/elftoolchain", "contrib/flex",
		"contrib/mtree", "contrib/one-true-awk", "lib/libdwarf", "lib/libelf", "lib/libelftc", "lib/libnv",
	}
}

func sortPaths(names []string) {
	slices.SortFunc(names, func(a, b string) int {
		if tree.Less(a, b) {
			return -1
		}
		if tree.Less(b, a) {
			return 1
		}
		return 0
	})
}

func sha256File(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("reading %q for its sum: %w", file, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("reading %q for its sum: %w", file, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// workers is how many files are read at once; reading waits for the disk more
// than for the processor.
func workers() int { return 2 * runtime.NumCPU() }

// Package archivetest makes small Debian archives for tests: real packages,
// real indexes, signed with a key of the test's own, behind a real HTTP server
// on loopback.
package archivetest

import (
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Package is one package to be put into an archive.
type Package struct {
	Name, Version string
	// Fields are further lines of the control file, "Depends: x".
	Fields string
	// Files are the package's files by path; nil gives it one.
	Files map[string]string
}

// Archive is an archive with one suite, "tiny", and one component, "main".
type Archive struct {
	// URL is what a recipe names as its mirror, Keyring as its keyring.
	URL, Keyring string

	dir, gnupg string
	server     *httptest.Server
	mu         sync.Mutex
	asked      []string
	// published counts the archive's states.
	published int
}

// New makes an archive that holds the packages. It skips the test where the
// programs for it are missing.
func New(t *testing.T, packages ...Package) *Archive {
	t.Helper()
	for _, bin := range []string{"gpg", "gpgconf", "dpkg-deb", "apt-get"} {
		if _, err := exec.LookPath(bin); err != nil {
			t.Skipf("skipped: %v", err)
		}
	}
	a := &Archive{dir: t.TempDir()}
	a.makeKey(t)
	files := http.FileServer(http.Dir(a.dir))
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked = append(a.asked, r.URL.Path)
		a.mu.Unlock()
		files.ServeHTTP(w, r)
	}))
	t.Cleanup(a.server.Close)
	a.URL = a.server.URL
	a.Publish(t, packages...)
	return a
}

// Stop makes the mirror go away, its port closed.
func (a *Archive) Stop() { a.server.Close() }

// Asked returns the paths that were fetched under a prefix since the last call.
func (a *Archive) Asked(prefix string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []string
	for _, p := range a.asked {
		if strings.HasPrefix(p, prefix) {
			found = append(found, p)
		}
	}
	a.asked = nil
	return found
}

// makeKey makes a signing key in a home of its own; the agent that gpg starts
// for it ends with the test.
func (a *Archive) makeKey(t *testing.T) {
	t.Helper()
	// A socket's path is short, a test's folder may not be.
	home, err := os.MkdirTemp("", "rzt-gpg-")
	if err != nil {
		t.Fatal(err)
	}
	a.gnupg, a.Keyring = home, filepath.Join(home, "keyring.gpg")
	t.Cleanup(func() {
		a.run(t, "gpgconf", "--kill", "all")
		_ = os.RemoveAll(home)
	})
	a.run(t, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "rhizome test archive", "rsa2048", "sign", "never")
	a.run(t, "gpg", "--batch", "--quiet", "--output", a.Keyring, "--export")
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
}

func (a *Archive) run(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+a.gnupg, "SOURCE_DATE_EPOCH=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Publish replaces all that the archive holds, as a mirror moves on: what was
// there before is gone.
func (a *Archive) Publish(t *testing.T, packages ...Package) {
	t.Helper()
	for _, d := range []string{"pool", "dists"} {
		if err := os.RemoveAll(filepath.Join(a.dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	var index strings.Builder
	for _, p := range packages {
		file, control := a.build(t, p)
		body, err := os.ReadFile(filepath.Join(a.dir, file))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", control, file, len(body), sha256.Sum256(body))
	}
	a.index(t, index.String())
	a.date(t)
}

// date makes every state of the archive an hour younger than the one before:
// HTTP dates have seconds, and two states of one second would pass for one.
func (a *Archive) date(t *testing.T) {
	t.Helper()
	a.published++
	when := time.Date(2026, 1, 1, a.published, 0, 0, 0, time.UTC)
	err := filepath.WalkDir(filepath.Join(a.dir, "dists"), func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, when, when)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// build makes one .deb with the tool that Debian makes them with.
func (a *Archive) build(t *testing.T, p Package) (file, control string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), p.Name)
	control = fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@invalid>\nDescription: made by a test\n", p.Name, p.Version)
	if p.Fields != "" {
		control += p.Fields + "\n"
	}
	files := map[string]string{"usr/share/" + p.Name: p.Name + " " + p.Version + "\n"}
	if p.Files != nil {
		files = p.Files
	}
	write(t, filepath.Join(root, "DEBIAN/control"), control)
	for path, text := range files {
		write(t, filepath.Join(root, path), text)
	}
	version := p.Version[strings.IndexByte(p.Version, ':')+1:]
	file = fmt.Sprintf("pool/main/%c/%s/%s_%s_all.deb", p.Name[0], p.Name, p.Name, version)
	if err := os.MkdirAll(filepath.Dir(filepath.Join(a.dir, file)), 0o755); err != nil {
		t.Fatal(err)
	}
	a.run(t, "dpkg-deb", "--root-owner-group", "--build", root, filepath.Join(a.dir, file))
	return file, control
}

// index writes Packages and a signed InRelease.
func (a *Archive) index(t *testing.T, packages string) {
	t.Helper()
	suite := filepath.Join(a.dir, "dists/tiny")
	var release strings.Builder
	release.WriteString("Origin: test\nSuite: tiny\nCodename: tiny\nArchitectures: amd64 arm64 all\nComponents: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n")
	for _, arch := range []string{"amd64", "arm64"} {
		name := "main/binary-" + arch + "/Packages"
		write(t, filepath.Join(suite, name), packages)
		write(t, filepath.Join(suite, name+".gz"), zipped(t, packages))
		for _, n := range []string{name, name + ".gz"} {
			body, err := os.ReadFile(filepath.Join(suite, n))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&release, " %x %d %s\n", sha256.Sum256(body), len(body), n)
		}
	}
	write(t, filepath.Join(suite, "Release"), release.String())
	a.run(t, "gpg", "--batch", "--quiet", "--yes", "--output", filepath.Join(suite, "InRelease"), "--clearsign", filepath.Join(suite, "Release"))
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

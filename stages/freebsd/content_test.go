package freebsd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// copyTree makes a copy of the fixture tree, a symbolic link added.
func copyTree(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "src")
	if err := os.CopyFS(dir, os.DirFS("../../testdata/freebsd-src")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("etc/group", filepath.Join(dir, "bin/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "tools/build/make.py"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// git runs git in a folder, apart from the user's configuration.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("skipped: git is not installed")
	}
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func commitAll(t testing.TB, dir string) string {
	t.Helper()
	git(t, dir, "init", "--quiet", "-b", "main")
	git(t, dir, "add", "--all", "--force")
	git(t, dir, "commit", "--quiet", "-m", "all")
	return git(t, dir, "rev-parse", "HEAD")
}

// world reads the identities of everything that a world is made of.
func world(t testing.TB, dir, state string) string {
	t.Helper()
	c, err := Reader{State: state}.Read(t.Context(), Source{Dir: dir, Arch: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Select(append(c.WorldReads(), c.KernelReads()...))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(in)
}

func change(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestACheckoutAndAnArchiveOfTheSameFilesHaveTheSameContent(t *testing.T) {
	archive, checkout := copyTree(t), copyTree(t)
	commitAll(t, checkout)
	if a, b := world(t, archive, ""), world(t, checkout, ""); a != b {
		t.Errorf("the archive has %s\nthe checkout %s", a, b)
	}
}

func TestLocalChangesCountWhetherCommittedOrNot(t *testing.T) {
	dir, state := copyTree(t), t.TempDir()
	commitAll(t, dir)
	clean := world(t, dir, state)
	change(t, dir, "sys/kern/main.c", "int main(void) { return 1; }\n")
	change(t, dir, "sys/kern/new.c", "int new;\n")
	dirty := world(t, dir, state)
	if dirty == clean {
		t.Error("uncommitted changes change nothing")
	}
	if status := git(t, dir, "status", "--porcelain"); !strings.Contains(status, "?? sys/kern/new.c") {
		t.Errorf("the user's index was touched: %q", status)
	}
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "-m", "changed")
	if committed := world(t, dir, state); committed != dirty {
		t.Errorf("committing what was there gives other content:\n%s\n%s", dirty, committed)
	}
	git(t, dir, "checkout", "--quiet", "HEAD~1")
	if back := world(t, dir, state); back != clean {
		t.Error("going back does not give the first content again")
	}
}

func TestIgnoredFilesAreContentToo(t *testing.T) {
	dir, state := copyTree(t), t.TempDir()
	change(t, dir, ".gitignore", "*.local\n")
	commitAll(t, dir)
	before := world(t, dir, state)
	change(t, dir, "sys/kern/config.local", "x\n")
	if world(t, dir, state) == before {
		t.Error("make reads a file that git ignores, but the content does not")
	}
}

func TestWhatIsRememberedIsForgottenWhenItBreaks(t *testing.T) {
	for _, checkout := range []bool{true, false} {
		dir, state := copyTree(t), t.TempDir()
		if checkout {
			commitAll(t, dir)
		}
		before := world(t, dir, state)
		files, err := filepath.Glob(filepath.Join(state, "*"))
		if err != nil || len(files) == 0 {
			t.Fatal("nothing is remembered: ", err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil && !info.IsDir() {
				if err := os.WriteFile(f, []byte("1 2 3 4 zzzz bin/cat/cat.c\nrubbish"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		if after := world(t, dir, state); after != before {
			t.Errorf("checkout %v: a damaged memory gives other content", checkout)
		}
	}
}

func TestRememberedFilesAreNotReadAgain(t *testing.T) {
	dir, state := copyTree(t), t.TempDir()
	later := func() time.Time { return time.Now().Add(time.Hour) }
	r := Reader{State: state, Now: later}
	if _, err := r.Read(t.Context(), Source{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	known := r.load(dir)
	s, ok := known["bin/cat/cat.c"]
	if !ok || len(known) < 30 {
		t.Fatalf("%d files are remembered", len(known))
	}
	// A false name shows whether the memory is believed.
	s.id = strings.Repeat("ab", 20)
	known["bin/cat/cat.c"] = s
	if err := r.save(dir, known); err != nil {
		t.Fatal(err)
	}
	w := walker{root: dir, known: r.load(dir), ids: map[string]string{}, now: later()}
	if err := w.files(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.ids["bin/cat/cat.c"]; got != "100644:"+s.id {
		t.Errorf("an unchanged file was read again: %s", got)
	}
	change(t, dir, "bin/cat/cat.c", "other\n")
	w = walker{root: dir, known: r.load(dir), ids: map[string]string{}, now: later()}
	if err := w.files(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.ids["bin/cat/cat.c"]; got == "100644:"+s.id {
		t.Error("a changed file was not read again")
	}
}

func TestAFileOfThisMomentIsNotRemembered(t *testing.T) {
	dir, state := copyTree(t), t.TempDir()
	r := Reader{State: state, Now: func() time.Time { return time.Now().Add(-time.Second) }}
	if _, err := r.Read(t.Context(), Source{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.load(dir)); n != 0 {
		t.Errorf("%d files are remembered that may change within the same tick", n)
	}
}

// BenchmarkSecondKey is the cost of naming an unchanged tree in both ways.
// RHIZOME_FREEBSD_SRC names a full checkout; otherwise it is the fixture.
func BenchmarkSecondKey(b *testing.B) {
	dir := os.Getenv("RHIZOME_FREEBSD_SRC")
	if dir == "" {
		dir = copyTree(b)
		commitAll(b, dir)
	}
	// The memory of a tree that was changed in this moment is not believed.
	r := Reader{State: b.TempDir(), Now: func() time.Time { return time.Now().Add(time.Hour) }}
	for name, read := range map[string]func() (Content, error){
		"files":    func() (Content, error) { return r.readFiles(b.Context(), dir) },
		"checkout": func() (Content, error) { return r.readGit(b.Context(), dir) },
	} {
		b.Run(name, func(b *testing.B) {
			if _, err := read(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := read(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Builds, plans and doctors look at one tree at once; each has all of it.
func TestManyReadersOfOneCheckoutAgree(t *testing.T) {
	dir, state := copyTree(t), t.TempDir()
	commitAll(t, dir)
	want := world(t, dir, state)
	got := make(chan string, 24)
	for range cap(got) {
		go func() {
			c, err := Reader{State: state}.Read(t.Context(), Source{Dir: dir, Arch: "amd64"})
			if err != nil {
				got <- err.Error()
				return
			}
			in, err := c.Select(append(c.WorldReads(), c.KernelReads()...))
			got <- fmt.Sprint(in, err)
		}()
	}
	for range cap(got) {
		if g := <-got; g != want+" <nil>" {
			t.Fatalf("one reader has\n%s\nand should have\n%s", g, want)
		}
	}
}

// A hook of git's, in which builds are started, says by the environment which
// repository it is of. That is no say in ours: a checkout once moved its HEAD.
func TestTheRepositoryOfAHookIsLeftAlone(t *testing.T) {
	theirs, src, state := t.TempDir(), copyTree(t), t.TempDir()
	git(t, theirs, "init", "--quiet", "-b", "main")
	git(t, theirs, "commit", "--quiet", "--allow-empty", "-m", "theirs")
	commit := commitAll(t, src)
	want := world(t, src, state)
	s, err := Open(src, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	stamp := versionControlStamp(t.Context(), s)
	t.Setenv("GIT_DIR", filepath.Join(theirs, ".git"))
	t.Setenv("GIT_WORK_TREE", theirs)
	dir, err := Checkout(t.Context(), t.TempDir(), src, commit, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := world(t, dir, state); got != want {
		t.Errorf("the checkout has\n%s\nand should have\n%s", got, want)
	}
	if got := versionControlStamp(t.Context(), s); got != stamp {
		t.Errorf("the stamp is %q, and was %q", got, stamp)
	}
	if err := errors.Join(os.Unsetenv("GIT_DIR"), os.Unsetenv("GIT_WORK_TREE")); err != nil {
		t.Fatal(err)
	}
	if branch := git(t, theirs, "rev-parse", "--abbrev-ref", "HEAD"); branch != "main" {
		t.Errorf("their HEAD is %q now", branch)
	}
}

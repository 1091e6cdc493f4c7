package debian_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
	"rhizome/stages/debian/bootstrap"
)

// epoch is the recipes' date in these tests.
var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// request is a small root with what has made roots differ: a file capability
// (iputils-ping), byte-compiled Python, a package that makes users and a
// machine id (dbus), host keys (openssh-server), a shared key (munge).
func request() aptlock.Request {
	return aptlock.Request{Suite: "bookworm", Components: []string{"main"}, Arch: "amd64", Variant: "essential",
		Packages: []string{"iputils-ping", "python3-minimal", "dbus", "openssh-server", "munge"}}
}

// asked is what a helper process is told to build.
type asked struct {
	Work, Cache string
	Set         recipes.PackageSet
}

// TestMain lets the test's own binary build a root as another user.
func TestMain(m *testing.M) {
	if job := os.Getenv("RHIZOME_TEST_BUILD"); job != "" {
		os.Exit(buildAndList(job))
	}
	os.Exit(m.Run())
}

func buildAndList(job string) int {
	var a asked
	err := json.Unmarshal([]byte(job), &a)
	if err == nil {
		err = listBuild(a, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func listBuild(a asked, w io.Writer) error {
	ctx := context.Background()
	sys, err := aptlock.ReadSystem(ctx)
	if err != nil {
		return err
	}
	env := debian.Env{Work: a.Work, LogFile: filepath.Join(a.Work, "log"), Apt: &aptlock.Apt{Cache: a.Cache, System: sys}}
	t, err := debian.Build(ctx, env, debian.Spec{Request: request(), Set: a.Set, Epoch: epoch})
	if err != nil {
		return err
	}
	for _, e := range t.Entries() {
		if _, err := fmt.Fprintln(w, describe(e)); err != nil {
			return err
		}
	}
	return os.Remove(filepath.Join(a.Work, "root.tar"))
}

// describe is all of an entry that a layer holds, in one line.
func describe(e *tree.Entry) string {
	h := sha256.New()
	if e.Body != nil {
		r, err := e.Body.Open()
		if err != nil {
			return err.Error()
		}
		defer r.Close()
		if _, err := io.Copy(h, r); err != nil {
			return err.Error()
		}
	}
	return fmt.Sprintf("%s %s %o %d:%d %q %d,%d -> %q = %q %x", e.Path, e.Kind, e.Mode, e.UID, e.GID, e.Xattrs, e.Major, e.Minor, e.Target, e.Link, h.Sum(nil)[:12])
}

// "building as root and as a user gives the same": the line, shown on
// a real root, in folders and under host names that differ.
func TestRootAndUserBuildTheSameRoot(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: builds two Debian roots")
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, to build as root and as somebody else")
	}
	apt := system(t, t.TempDir())
	set, err := apt.Resolve(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	cred := ordinaryUser(t)
	var asRoot, asUser []string
	t.Run("side by side", func(t *testing.T) {
		t.Run("root", func(t *testing.T) { t.Parallel(); asRoot = build(t, set, nil, sharedCache(t)) })
		t.Run("user", func(t *testing.T) { t.Parallel(); asUser = build(t, set, cred, "") })
	})
	if t.Failed() {
		return
	}
	compare(t, asRoot, asUser)
	for _, want := range []string{
		`usr/bin/ping file 755 0:0 map["security.capability":`,
	} {
		if !slices.ContainsFunc(asRoot, func(l string) bool { return strings.HasPrefix(l, want) }) {
			t.Errorf("the root has no %s", want)
		}
	}
	for _, never := range []string{"etc/ssh/ssh_host_", "etc/munge/munge.key", "etc/resolv.conf", "etc/hostname", "dev/", "var/lib/dbus/machine-id file"} {
		if i := slices.IndexFunc(asRoot, func(l string) bool { return strings.HasPrefix(l, never) }); i >= 0 {
			t.Errorf("the root has %s", asRoot[i])
		}
	}
}

func compare(t *testing.T, a, b []string) {
	t.Helper()
	onlyA, onlyB := without(a, b), without(b, a)
	if len(onlyA)+len(onlyB) > 0 {
		t.Errorf("two builds differ in %d and %d entries:\n- %s\n+ %s", len(onlyA), len(onlyB),
			strings.Join(onlyA[:min(20, len(onlyA))], "\n- "), strings.Join(onlyB[:min(20, len(onlyB))], "\n+ "))
	}
	if len(a) < 3000 {
		t.Errorf("a root of %d entries is no root", len(a))
	}
}

func without(a, b []string) []string {
	has := map[string]bool{}
	for _, l := range b {
		has[l] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(l string) bool { return has[l] })
}

// build builds in a process of its own, as another user where cred is given,
// whose folder nobody else can enter, as Debian's home folders are.
func build(t *testing.T, set recipes.PackageSet, cred *syscall.Credential, cache string) []string {
	t.Helper()
	work := workFolder(t, cred)
	if cache == "" {
		cache = filepath.Join(work, "cache")
	}
	job, err := json.Marshal(asked{Work: work, Cache: cache, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testBinary(t, work))
	cmd.Env = append(os.Environ(), "RHIZOME_TEST_BUILD="+string(job), "HOME="+work)
	cmd.Dir, cmd.SysProcAttr = work, &syscall.SysProcAttr{Credential: cred}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "log"))
		t.Fatalf("building (as somebody else: %v): %v\n%s\n%s", cred != nil, err, said.String(), log)
	}
	left, _ := filepath.Glob(filepath.Join(work, "root*"))
	if locked, _ := filepath.Glob(filepath.Join(work, "locked*")); len(left)+len(locked) > 0 {
		t.Errorf("the build left %v %v", left, locked)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// testBinary copies this test's binary to where the other user can run it.
func testBinary(t *testing.T, work string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(work, "build.test")
	if err := os.WriteFile(name, body, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func workFolder(t *testing.T, cred *syscall.Credential) string {
	t.Helper()
	work, err := os.MkdirTemp("", "rhizome-debian-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	if cred != nil {
		if err := os.Chown(work, int(cred.Uid), int(cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return work
}

// ordinaryUser makes a user with a range of ids, and removes it afterwards.
func ordinaryUser(t *testing.T) *syscall.Credential {
	t.Helper()
	name := fmt.Sprintf("rzt%d", os.Getpid())
	if out, err := exec.Command("useradd", "--no-create-home", "--user-group", name).CombinedOutput(); err != nil {
		t.Skipf("skipped: cannot make a user: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("removing the user %s: %v: %s", name, err, out)
		}
	})
	if err := giveRange(name); err != nil {
		t.Skipf("skipped: %v", err)
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// giveRange makes sure that the user has subordinate ids; useradd gives them
// on most machines.
func giveRange(name string) error {
	text, err := os.ReadFile("/etc/subuid")
	if err == nil && strings.Contains(string(text), name+":") {
		return nil
	}
	out, err := exec.Command("usermod", "--add-subuids", "300000-365535", "--add-subgids", "300000-365535", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("giving %s a range of ids: %w: %s", name, err, out)
	}
	return nil
}

// system is this machine's apt, or the reason why it cannot build.
func system(t *testing.T, cache string) *aptlock.Apt {
	t.Helper()
	if _, err := bootstrap.Versions(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	if _, err := bootstrap.Enter(t.Context()); err != nil {
		t.Skipf("skipped: %v", err)
	}
	sys, err := aptlock.ReadSystem(t.Context())
	if err != nil {
		t.Skipf("skipped: %v", err)
	}
	return &aptlock.Apt{Cache: cache, System: sys}
}

// sharedCache is the user's own cache of packages, so that tests run again do
// not fetch again.
func sharedCache(t *testing.T) string {
	t.Helper()
	dir, err := os.UserCacheDir()
	if err != nil {
		return t.TempDir()
	}
	return filepath.Join(dir, "rhizome")
}

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The recipe that root built is built again: by an ordinary user, from another
// folder, into an empty store, with another number of jobs. The digest is the
// same. A second build into that store, now full, gives it once more, from the
// cache alone.
func TestAnotherUserBuildsTheSameDigest(t *testing.T) {
	w := need(t)
	who := ordinaryUser(t)
	home := filepath.Join(w.dir, "home")
	recipe := filepath.Join(home, "work")
	if err := os.MkdirAll(recipe, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := writeRecipe(recipe); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(home, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(who.Uid), int(who.Gid))
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, run := range []string{"an empty store", "a full store"} {
		cmd := exec.CommandContext(t.Context(), w.binary, "--store", filepath.Join(home, "store"), "build", "e2e.yaml", "--jobs", "1")
		cmd.Dir = recipe
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LANG=C"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("building into %s: %v\n%s", run, err, errs.String())
		}
		if got := strings.TrimSpace(string(out)); got != w.digest {
			t.Errorf("into %s the user built %s, root built %s", run, got, w.digest)
		}
		if run == "a full store" && strings.Contains(errs.String(), "started") {
			t.Errorf("nothing had changed, and yet:\n%s", errs.String())
		}
	}
}

// ordinaryUser makes a user with subordinate ids, for the length of the test.
func ordinaryUser(t *testing.T) *syscall.Credential {
	t.Helper()
	name := fmt.Sprintf("rze2e%d", os.Getpid())
	if out, err := exec.Command("useradd", "--no-create-home", "--user-group", name).CombinedOutput(); err != nil {
		t.Skipf("skipped: cannot make a user: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("userdel", name).CombinedOutput(); err != nil {
			t.Errorf("removing the user %s: %v: %s", name, err, out)
		}
	})
	if out, err := exec.Command("usermod", "--add-subuids", "400000-465535", "--add-subgids", "400000-465535", name).CombinedOutput(); err != nil {
		t.Skipf("skipped: giving %s a range of ids: %v: %s", name, err, out)
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}
}

package debian_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/stages/debian"
	"rhizome/stages/debian/aptlock"
)

// small is the least that mmdebstrap installs.
func small() aptlock.Request {
	return aptlock.Request{Suite: "bookworm", Components: []string{"main"}, Arch: "amd64", Variant: "essential"}
}

func smallSpec(t *testing.T, apt *aptlock.Apt) debian.Spec {
	t.Helper()
	set, err := apt.Resolve(t.Context(), small())
	if err != nil {
		t.Fatal(err)
	}
	return debian.Spec{Request: small(), Set: set, Epoch: epoch}
}

// Ctrl-C in the middle of dpkg's work leaves no mount, no process and no file
// but the log.
func TestAnInterruptedBuildLeavesOnlyItsLog(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: begins a Debian root")
	}
	apt := system(t, sharedCache(t))
	spec := smallSpec(t, apt)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	work := t.TempDir()
	env := debian.Env{Work: work, LogFile: filepath.Join(work, "log"), Apt: apt, Line: func(l string) {
		if strings.Contains(l, "installing essential packages") {
			cancel(why)
		}
	}}
	if _, err := debian.Build(ctx, env, spec); !errors.Is(err, why) {
		t.Fatalf("got %v, want %v", err, why)
	}
	left, err := os.ReadDir(work)
	if err != nil || len(left) != 1 || left[0].Name() != "log" {
		t.Errorf("the build left %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(work)) {
		t.Errorf("a mount is left under %s, or %v", work, err)
	}
	if p := processesNaming(t, work); len(p) > 0 {
		t.Errorf("processes are left: %v", p)
	}
}

// processesNaming are the command lines that hold a path.
func processesNaming(t *testing.T, path string) []string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range all {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(path)) {
			found = append(found, string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return found
}

func TestAFullDiskIsSaid(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped: begins a Debian root")
	}
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, to mount a small disk")
	}
	apt := system(t, sharedCache(t))
	spec := smallSpec(t, apt)
	work := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=48M", "small", work).CombinedOutput(); err != nil {
		t.Skipf("skipped: cannot mount a small disk: %s", out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", work).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v: %s", err, out)
		}
	})
	_, err := debian.Build(t.Context(), debian.Env{Work: work, LogFile: filepath.Join(filepath.Dir(work), "log"), Apt: apt}, spec)
	if err == nil || !strings.Contains(err.Error(), "is full") || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(work); len(left) > 0 {
		t.Errorf("the build left %v", left)
	}
}

func TestAMachineWithoutMmdebstrapIsTold(t *testing.T) {
	apt := system(t, sharedCache(t))
	t.Setenv("PATH", t.TempDir())
	if _, err := exec.LookPath("mmdebstrap"); err == nil {
		t.Fatal("the test's PATH still has mmdebstrap")
	}
	_, err := debian.Build(t.Context(), debian.Env{Work: t.TempDir(), Apt: apt}, debian.Spec{Request: small(), Epoch: epoch})
	if err == nil || !strings.Contains(err.Error(), "is not installed; on Debian, apt-get install ") {
		t.Errorf("got %v", err)
	}
}

package rpctest

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace moves the test's goroutine, and the programs it starts, into a
// network namespace of its own, with nothing but a loopback interface, and a
// file system whose /run is empty. It goes away with the goroutine's thread:
// nothing is left behind, even by a crash. Sockets that the goroutine opens
// stay in the namespace when other goroutines use them; other goroutines must
// open none.
func Namespace(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skipped: a network namespace needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Skipf("skipped: no namespace can be made here: %v", err)
	}
	must := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	must("making mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	must("mounting an empty /run", unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"))
	Run(t, "ip", "link", "set", "lo", "up")
}

// Run runs a program in the test's namespace, which must succeed, and gives
// its output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := Try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

// Try runs a program in the test's namespace.
func Try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skipped: %s is not installed", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

package early

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A bundle that comes when userland is up is not laid over what the node mounted
// meanwhile, nor over folders with such mounts in them: programs would lose sight
// of what they write.
func TestALateBundleHidesNoMount(t *testing.T) {
	list := [][]string{
		{"10.77.0.1:/nodes/n1", "/", "nfs"}, {"rhizome", "/usr", "overlay"}, {"rhizome", "/opt", "overlay"},
		{"tmpfs", "/var", "tmpfs"}, {"10.77.0.1:/persist/n1", "/opt/data", "nfs"}, {"tmpfs", "/usrlocal/tmp", "tmpfs"},
	}
	for dir, want := range map[string]bool{"/usr": false, "/opt": true, "/opt/data": true, "/var": true, "/lib": false} {
		if got := mounted(list, dir); got != want {
			t.Errorf("mounted(%q) is %v", dir, got)
		}
	}
}

// The rest of a bundle has the files of a closed folder, and not that folder, where
// the first part has it: who is not root must not come to them behind the overlay.
func TestOnlyRootGetsIntoTheMemoryOfABundle(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can mount")
	}
	dir := t.TempDir()
	if err := (realSystem{}).Tmpfs(dir, 1<<20); err != nil {
		t.Skip("skipped: mounting is not allowed here: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
}

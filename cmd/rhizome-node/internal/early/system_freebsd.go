package early

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"

	"golang.org/x/sys/unix"
)

// realSystem is the machine itself. On FreeBSD the early script mounts by
// itself, with the base's own programs; what is mounted here is the blobs, while
// they are read.
type realSystem struct{}

var errScript = errors.New("the early script does this itself on FreeBSD")

func (realSystem) Uptime() time.Duration                  { return agent.Uptime() }
func (realSystem) Tmpfs(string, int64) error              { return errScript }
func (realSystem) Overlay([]string, string) error         { return errScript }
func (realSystem) Mounted(string) bool                    { return false }
func (realSystem) Behind() error                          { return unix.Setpriority(unix.PRIO_PROCESS, 0, 20) }
func (realSystem) Memory() (total, free int64, err error) { return memory() }

// What nfssvc(2) wants for the client's counters, as nfsstat(1) asks for them, and
// nobody needs to be root for (sys/nfs/nfssvc.h). statsV1 is struct nfsstatsov1 of
// 15, and nfsstatsv1 before: a version, 18 counters of caches, then one for each
// procedure, of which the first 22 are those of version 3 (RFC 1813).
const (
	getStats, newStruct = 0x00400000, 0x20000000
	statsV1             = 1
	firstCall, callsV3  = 1 + 18, 22
)

// NFSCalls adds up the client's counters.
func (realSystem) NFSCalls() (sum int64) {
	// The kernel writes all of the struct, which is less than half of this.
	stats := [2048]int64{statsV1}
	if _, _, errno := unix.Syscall(unix.SYS_NFSSVC, getStats|newStruct, uintptr(unsafe.Pointer(&stats)), 0); errno != 0 {
		return 0
	}
	for _, n := range stats[firstCall : firstCall+callsV3] {
		sum += n
	}
	return sum
}

// NFS mounts an export by mount_nfs(8), which is tried once. Who says nothing for
// about a minute and a half is given up.
func (realSystem) NFS(export, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	const options = "ro,nosuid,noexec,nfsv3,tcp,nolockd,soft,intr,timeout=300,retrans=2,retrycnt=1"
	if out, err := exec.Command("/sbin/mount_nfs", "-o", options, export, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Unmount lets go of what is mounted, whoever uses it.
func (realSystem) Unmount(dir string) error { return unix.Unmount(dir, unix.MNT_FORCE) }

// memory is hw.physmem, and the pages that are free or could be at once.
func memory() (total, free int64, err error) {
	all, err := unix.SysctlUint64("hw.physmem")
	if err != nil {
		return 0, 0, err
	}
	pages := uint64(0)
	for _, name := range []string{"vm.stats.vm.v_free_count", "vm.stats.vm.v_inactive_count", "vm.stats.vm.v_laundry_count"} {
		n, err := unix.SysctlUint32(name)
		if err != nil {
			return 0, 0, err
		}
		pages += uint64(n)
	}
	return int64(all), int64(pages) * int64(os.Getpagesize()), nil
}

// state is what the node tells of itself.
func state(dir string) nodeapi.Up {
	u := nodeapi.Up{Root: "nfs", Uptime: agent.Uptime().Seconds()}
	if out, err := exec.Command("/bin/kenv", "-q", "rhizome.digest").Output(); err == nil {
		u.Digest = strings.TrimSpace(string(out))
	}
	u.Kernel, _ = unix.Sysctl("kern.osrelease")
	u.MemTotal, u.MemFree, _ = memory()
	if mode, err := os.ReadFile(filepath.Join(dir, "root")); err == nil {
		u.Root = strings.TrimSpace(string(mode))
	}
	u.BundleBytes, u.TmpfsBytes = usage(dir)
	return u
}

// usage is what the bundle and all other memory file systems take in bytes. The
// bundle lies below dir: as a blob that tarfs(4) reads, or unpacked.
func usage(dir string) (held, others int64) {
	n, err := unix.Getfsstat(nil, unix.MNT_NOWAIT)
	if err != nil {
		return 0, 0
	}
	list := make([]unix.Statfs_t, n+8)
	if n, err = unix.Getfsstat(list, unix.MNT_NOWAIT); err != nil {
		return 0, 0
	}
	for _, st := range list[:n] {
		if unix.ByteSliceToString(st.Fstypename[:]) != "tmpfs" {
			continue
		}
		on := unix.ByteSliceToString(st.Mntonname[:])
		// What the list says is as old as the mount (getfsstat(2), MNT_NOWAIT);
		// waiting for all would wait for a server that is gone. Inside
		// init_chroot(8) the path of an outer mount leads elsewhere.
		listed := st.Fsid
		if unix.Statfs(on, &st) != nil || st.Fsid != listed {
			continue
		}
		used := int64(st.Blocks-st.Bfree) * int64(st.Bsize)
		if on == filepath.Join(dir, "bundle") || on == filepath.Join(dir, "blob") {
			held += used
		} else {
			others += used
		}
	}
	return held, others
}

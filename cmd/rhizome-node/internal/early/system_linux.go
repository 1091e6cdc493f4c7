package early

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"

	"golang.org/x/sys/unix"
)

// realSystem is the machine itself.
type realSystem struct{}

// Uptime is the time since power-on.
func (realSystem) Uptime() time.Duration { return agent.Uptime() }

// NFSCalls reads the client's counters: "rpc CALLS RETRANSMISSIONS AUTHENTICATIONS".
func (realSystem) NFSCalls() int64 {
	data, err := os.ReadFile("/proc/net/rpc/nfs")
	if err != nil {
		return 0
	}
	return rpcCalls(data)
}

func rpcCalls(data []byte) int64 {
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "rpc" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// Memory reads proc(5), /proc/meminfo.
func (realSystem) Memory() (total, free int64, err error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, fmt.Errorf("reading how much memory is free: %w", err)
	}
	total, free = meminfo(data, "MemTotal"), meminfo(data, "MemAvailable")
	if total == 0 || free == 0 {
		return 0, 0, errors.New("/proc/meminfo does not say how much memory is free")
	}
	return total, free, nil
}

// meminfo is one line of /proc/meminfo in bytes, 0 if it is not there.
func meminfo(data []byte, name string) int64 {
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == name+":" && f[2] == "kB" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// Tmpfs mounts tmpfs(5). Nobody but root gets into it but by what is laid over the
// root: a part of a bundle may have a file without the closed folders around it.
func (realSystem) Tmpfs(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount("rhizome-bundle", dir, "tmpfs", unix.MS_NODEV, fmt.Sprintf("mode=0700,nr_inodes=0,size=%d", size))
}

// overlaySource is what our overlays are mounted from, as mount(8) shows it.
const overlaySource = "rhizome"

// Overlay mounts overlayfs without an upper folder, which makes it read-only.
func (realSystem) Overlay(folders []string, on string) error {
	err := unix.Mount(overlaySource, on, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(folders, ":"))
	if errors.Is(err, unix.ENODEV) {
		return errors.New("the kernel has no overlayfs: its module, or modprobe (package kmod), is missing")
	}
	return err
}

// nfsOptions are nfs(5)'s for what is read once in sequence. Who says nothing
// for a minute and a half is given up; no lock manager and no portmapper are
// needed.
const nfsOptions = "vers=3,proto=tcp,mountproto=tcp,port=2049,mountport=2049,nolock,noacl,soft,timeo=300,retrans=2,addr="

// NFS mounts an export by the kernel's own client, without a helper.
func (realSystem) NFS(export, dir string) error {
	host, _, _ := strings.Cut(export, ":/")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return unix.Mount(export, dir, "nfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, nfsOptions+host)
}

// Unmount lets go of what is mounted, now or when its last user is gone.
func (realSystem) Unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }

// Mounted reads proc(5), /proc/self/mounts.
func (realSystem) Mounted(dir string) bool { return mounted(mounts(), dir) }

// mounted goes by what was mounted last on a folder, and by all that lies below
// it, which would be hidden: a tmpfs or an export of the node's own.
func mounted(list [][]string, dir string) bool {
	on, below := false, false
	for _, m := range list {
		switch {
		case m[1] == dir:
			on = !ours(m)
		case strings.HasPrefix(m[1], dir+"/"):
			below = true
		}
	}
	return on || below
}

// ours says whether a mount was made by Overlay.
func ours(m []string) bool { return m[0] == overlaySource && m[2] == "overlay" }

// Behind has all threads of this process run on CPUs that nobody else wants
// (sched(7), SCHED_IDLE); those to come are like the ones that make them.
func (realSystem) Behind() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		idle := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
		if err := unix.SchedSetAttr(id, &idle, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("waiting for idle CPUs: %w", err)
		}
	}
	return nil
}

// mounts are the fields of /proc/self/mounts, line by line.
func mounts() [][]string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var all [][]string
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 3 {
			all = append(all, f)
		}
	}
	return all
}

// state is what the node tells of itself.
func state(dir string) nodeapi.Up {
	u := nodeapi.Up{Digest: cmdline("rhizome.digest="), Root: rootMode(dir), Uptime: agent.Uptime().Seconds()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		u.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	u.MemTotal, u.MemFree, _ = realSystem{}.Memory()
	for _, m := range mounts() {
		var st unix.Statfs_t
		if m[2] != "tmpfs" || unix.Statfs(m[1], &st) != nil {
			continue
		}
		used := int64(st.Blocks-st.Bfree) * st.Bsize
		if m[1] == filepath.Join(dir, "bundle") {
			u.BundleBytes = used
		} else {
			u.TmpfsBytes += used
		}
	}
	return u
}

// rootMode is what the root really is, whatever the plan said.
func rootMode(dir string) string {
	mode := "nfs"
	for _, m := range mounts() {
		switch {
		case m[1] == "/" && m[2] == "tmpfs":
			return "ram"
		case ours(m):
			mode = "precache"
		}
	}
	return mode
}

// cmdline is a word of the kernel's command line, without its prefix.
func cmdline(prefix string) string {
	data, _ := os.ReadFile("/proc/cmdline")
	for word := range strings.FieldsSeq(string(data)) {
		if v, ok := strings.CutPrefix(word, prefix); ok {
			return v
		}
	}
	return ""
}

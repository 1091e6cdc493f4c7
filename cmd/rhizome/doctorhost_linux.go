package main

import (
	"bufio"
	"bytes"
	"net"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func mountedReadOnly(st *syscall.Statfs_t) bool { return st.Flags&unix.ST_RDONLY != 0 }

// memoryRoom is what memory the machine has to give (proc(5), MemAvailable), and
// the narrowest bound of the control groups that this process is in
// (Documentation/admin-guide/cgroup-v2.rst, memory.max); 0 is not known.
func memoryRoom() (available, bound int64) {
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		available = meminfo(data, "MemAvailable:")
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return available, 0
	}
	for dir := unifiedGroup(groups); dir != ""; dir = path.Dir(dir) {
		text, _ := os.ReadFile(path.Join("/sys/fs/cgroup", dir, "memory.max")) // the root has none
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && (bound == 0 || n < bound) {
			bound = n
		}
		if dir == "/" {
			break
		}
	}
	return available, bound
}

// meminfo is one line's value in bytes.
func meminfo(data []byte, name string) int64 {
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(string(rest)), "kB")), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// unifiedGroup is the process's control group, the line "0::/PATH".
func unifiedGroup(groups []byte) string {
	for line := range strings.Lines(string(groups)) {
		if dir, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path.Clean("/" + dir)
		}
	}
	return ""
}

// kernelNFS says whether the kernel's own NFS server runs.
func kernelNFS() bool {
	text, err := os.ReadFile("/proc/fs/nfsd/threads")
	return err == nil && strings.TrimSpace(string(text)) != "0"
}

// neighbour is a machine that this one has heard of.
type neighbour struct {
	addr netip.Addr
	mac  net.HardwareAddr
	on   string
}

// neighbours is the kernel's table of those (proc(5), /proc/net/arp).
func neighbours() []neighbour {
	data, err := os.ReadFile("/proc/net/arp")
	if err != nil {
		return nil
	}
	return parseNeighbours(data)
}

// complete is the flag of an entry that was answered (ATF_COM).
const complete = 0x2

func parseNeighbours(table []byte) (all []neighbour) {
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 {
			continue
		}
		addr, badAddr := netip.ParseAddr(f[0])
		flags, badFlags := strconv.ParseUint(strings.TrimPrefix(f[2], "0x"), 16, 32)
		mac, badMAC := net.ParseMAC(f[3])
		if badAddr == nil && badFlags == nil && badMAC == nil && flags&complete != 0 {
			all = append(all, neighbour{addr, mac, f[5]})
		}
	}
	return all
}

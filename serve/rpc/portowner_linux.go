package rpc

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// PortOwner names the process that holds a TCP ("tcp") or UDP ("udp") port on
// this host, for a message that a port is taken. It looks in proc(5) and finds
// nothing where it may not look: others' descriptors need root.
func PortOwner(network string, port uint16) (Owner, bool) {
	return portOwner(os.DirFS("/proc"), network, port)
}

// portOwner finds the port's socket in net/tcp or net/udp of the thread's network
// namespace, and then the
// descriptor that is that socket.
func portOwner(proc fs.FS, network string, port uint16) (Owner, bool) {
	inodes := map[string]bool{}
	for _, table := range []string{network, network + "6"} {
		f, err := proc.Open("thread-self/net/" + table)
		if err != nil {
			continue
		}
		boundInodes(f, network, port, inodes)
		f.Close()
	}
	if len(inodes) == 0 {
		return Owner{}, false
	}
	return holder(proc, inodes)
}

// tcpListen is the state LISTEN in proc's tables (proc_net_tcp).
const tcpListen = "0A"

// boundInodes adds the inodes of the sockets bound to port in one of proc's
// tables: "sl local_address rem_address st ... inode".
func boundInodes(table io.Reader, network string, port uint16, into map[string]bool) {
	suffix := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || !strings.HasSuffix(f[1], suffix) {
			continue
		}
		if network == "tcp" && f[3] != tcpListen {
			continue
		}
		into[f[9]] = true
	}
}

func holder(proc fs.FS, inodes map[string]bool) (Owner, bool) {
	entries, _ := fs.ReadDir(proc, ".")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !holds(proc, e.Name(), inodes) {
			continue
		}
		name, _ := fs.ReadFile(proc, path.Join(e.Name(), "comm"))
		return Owner{PID: pid, Command: strings.TrimSpace(string(name))}, true
	}
	return Owner{}, false
}

// holds tells whether one of pid's descriptors is "socket:[INODE]".
func holds(proc fs.FS, pid string, inodes map[string]bool) bool {
	dir := path.Join(pid, "fd")
	fds, _ := fs.ReadDir(proc, dir)
	for _, fd := range fds {
		target, err := fs.ReadLink(proc, path.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok && inodes[strings.TrimSuffix(inode, "]")] {
			return true
		}
	}
	return false
}

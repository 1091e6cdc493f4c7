//go:build !linux

package main

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

func mountedReadOnly(st *syscall.Statfs_t) bool { return st.Flags&unix.MNT_RDONLY != 0 }

// memoryRoom knows nothing: only Linux's proc(5) tells.
func memoryRoom() (available, bound int64) { return 0, 0 }

// kernelNFS knows nothing: only Linux's proc(5) tells.
func kernelNFS() bool { return false }

// neighbour is a machine that this one has heard of.
type neighbour struct {
	addr netip.Addr
	mac  net.HardwareAddr
	on   string
}

// neighbours knows none: only Linux's proc(5) tells.
func neighbours() []neighbour { return nil }

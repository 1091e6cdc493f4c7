//go:build !linux

package main

import "golang.org/x/sys/unix"

// memoryTotal is the machine's memory in bytes, or 0 where it is not known.
func memoryTotal() int64 {
	n, err := unix.SysctlUint64("hw.physmem")
	if err != nil {
		return 0
	}
	return int64(n)
}

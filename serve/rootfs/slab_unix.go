//go:build unix

package rootfs

import "golang.org/x/sys/unix"

// reserve asks the system for memory that the garbage collector neither scans
// nor counts. Pages take real memory when they are first written. Where the
// system refuses, the heap serves.
func reserve(bytes int) (mem []byte, release func()) {
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]byte, bytes), func() {}
	}
	return mem, func() { _ = unix.Munmap(mem) }
}

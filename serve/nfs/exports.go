package nfs

import (
	"errors"
	"net/netip"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// FS is a read-only file system: *rootfs.View, and *rootfs.Blobs. Digest is that
// of the image whose root it is, empty for what is no root. Its methods are safe for
// use by many goroutines and refuse a File that is out of range with
// rootfs.ErrStale.
type FS interface {
	ID() [16]byte
	FSID() uint64
	Digest() string
	Usage() (bytes, inodes uint64)
	Root() rootfs.File
	Attr(f rootfs.File) (rootfs.Attr, error)
	Lookup(dir rootfs.File, name string) (rootfs.File, error)
	Parent(dir rootfs.File) (rootfs.File, error)
	Resolve(path string) (rootfs.File, error)
	Readlink(f rootfs.File) (string, error)
	ReadDir(dir rootfs.File, cookie uint64, fn func(rootfs.Dirent) bool) error
	// LendCached appends loans that together hold min(n, size-off) bytes of f
	// at off, without copying and without waiting; ok is false, and nothing
	// appended, where a part is not in memory.
	LendCached(f rootfs.File, off int64, n int, dst []rootfs.Loan) (loans []rootfs.Loan, size int64, ok bool)
	// Borrow does the same and fetches what is not in memory.
	Borrow(f rootfs.File, off int64, n int, dst []rootfs.Loan) ([]rootfs.Loan, error)
	AppendHandle(dst []byte, f rootfs.File) []byte
	FromHandle(h []byte) (rootfs.File, error)
}

// Exports says who may mount what. A refusal is an error that matches
// fs.ErrPermission; what does not exist matches fs.ErrNotExist. The client is
// an IPv4 address where it came from one, never its form in IPv6.
type Exports interface {
	// Export gives the file system of an export's path, such as
	// "/nodes/NAME". It may wait, for a layer to be opened.
	Export(path string, client netip.Addr) (FS, error)
	// ByID gives the file system that a handle names, if client may use it. Where
	// it has to wait for that, and may not, it answers ErrLater; so it does where
	// the client asks too often. Its answer is kept for as long as Generation
	// stays.
	ByID(id [16]byte, client netip.Addr, mayWait bool) (FS, error)
	// List is what client may mount, for showmount -e.
	List(client netip.Addr) []Export
	// Generation changes whenever an answer of ByID may have changed.
	Generation() uint64
}

// ErrLater is an answer of Exports that is not known at once.
var ErrLater = errors.New("the image is not open yet")

// Meter counts what one client asks of one file system. Its methods are called
// on the hot path, by many goroutines: they must neither wait nor allocate for
// each call.
type Meter interface {
	// Called counts a call on a file, or a LOOKUP that found it.
	Called(f rootfs.File)
	// Read counts a READ of so many bytes.
	Read(f rootfs.File, bytes int)
	// Searched counts a call that asked a directory for its names, or for one
	// that it has not.
	Searched(dir rootfs.File)
}

// Export is a line of the export list.
type Export struct {
	Path string
	// Groups are who may mount it: addresses or networks.
	Groups []string
}

// Backend serves writable exports. It is handed calls in goroutines of their
// own (rpc.Call.MayBlock), and answers for permissions itself.
type Backend interface {
	// Owns tells whether a handle is one of its own, by its form alone.
	Owns(handle []byte) bool
	// Mount gives the handle of a path below its prefix, or an error as
	// Exports does.
	Mount(path string, c *rpc.Call) (handle []byte, err error)
	// Call serves one NFSv3 call. c.Args begin with a handle that it owns,
	// whose length is right; nothing behind it has been looked at.
	Call(c *rpc.Call, out *rpc.Reply) rpc.Status
}

// Mounted is a backend and the paths that are its own.
type Mounted struct {
	// Prefix begins the export's paths, such as "/persist/".
	Prefix  string
	Backend Backend
}

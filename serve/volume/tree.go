package volume

import "math"

// maxFileSize is the largest size and offset in bytes.
const maxFileSize = math.MaxInt64

// tree is the files of one export. Its methods, and its objects', are safe for
// many goroutines; errors are errnos or match those of rootfs.
type tree interface {
	root() (object, error)
	// open finds the object with an id; ESTALE where it is gone.
	open(id []byte) (object, error)
	space() (space, error)
	// spare closes what is kept open for later.
	spare()
	close() error
	regional
}

// object is one file, directory or other inode of a tree, held until close.
// What a caller may do is decided before; names are valid ones.
type object interface {
	// id appends what names the object in file handles, for good.
	id(dst []byte) []byte
	attr() (attr, error)
	set(s *setAttrs) error
	// sync returns when all that was done to the object is on the disk.
	sync() error
	close()
	body
	directory
}

// body is what regular files and symlinks have.
type body interface {
	readAt(p []byte, off int64) (int, error)
	writeAt(p []byte, off int64) error
	readlink() (string, error)
}

// directory is what directories have.
type directory interface {
	lookup(name string) (object, error)
	parent() (object, error)
	// list calls fn for the names after a cookie, with "." and ".." among
	// them, until fn returns false. Cookies outlive changes to the directory.
	list(cookie uint64, fn func(dirent) bool) error
	create(name string, n *newObject) (object, error)
	// remove takes a name away; dir says which of rmdir(2) and unlink(2).
	remove(name string, dir bool) error
	rename(name string, to object, toName string) error
	// link gives target, an object of the same tree, one more name.
	link(name string, target object) error
}

// dirent is one name of a directory.
type dirent struct {
	name   string
	fileid uint64
	cookie uint64
}

// newObject is what is to be made.
type newObject struct {
	kind           kind
	mode, uid, gid uint32
	major, minor   uint32
	target         string
	// stamp, where it is set, becomes atime and mtime: the verifier of an
	// exclusive CREATE.
	stamp *[2]moment
}

// space is FSSTAT's numbers, in bytes and inodes.
type space struct {
	total, free, available uint64
	files, freeFiles       uint64
}

// quota bounds what a tree takes on the disk, in bytes. A nil quota has no end.
type quota struct {
	limit int64
	used  counter
}

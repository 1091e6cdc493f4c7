package layerfmt

// The limits of the format. A reader refuses what goes beyond them.
const (
	// MaxFrame is the most uncompressed bytes one frame holds.
	MaxFrame = 1 << 20
	// MaxCompressed is the most bytes a frame takes in the blob: zstd's bound
	// for MaxFrame bytes that do not compress, rounded up.
	MaxCompressed = MaxFrame + MaxFrame/128 + 1024
	// MaxName is the longest name in a directory, and MaxPath the longest
	// path and symlink text, in bytes (NAME_MAX and PATH_MAX of limits.h).
	MaxName = 255
	MaxPath = 4095
	// MaxEntries is the most entries of a tar that a layer is made of. What is
	// known of each stays in memory until the index is written (some 140 bytes),
	// and a blob of a few megabytes can unpack to as many as it likes.
	MaxEntries = 16 << 20
)

// Skippable frames have magic numbers 0x184D2A50 to 0x184D2A5F (RFC 8878,
// 3.1.2). 50 is pzstd's and zstd:chunked's, 5E the seek table's.
const (
	indexMagic     = 0x184D2A52
	seekTableMagic = 0x184D2A5E
	skippableHead  = 8
)

// The index: a header, then five arrays of fixed-width records and a heap of
// bytes, one behind the other. All numbers are little-endian.
const (
	indexName    = "rzlayer\x00"
	indexVersion = 1

	headLen   = 112
	inodeLen  = 64
	direntLen = 12
	frameLen  = 56
	xattrLen  = 16
	digestLen = 32
)

// Offsets in the header.
const (
	headName    = 0
	headVersion = 8
	headCRC     = 12 // CRC32C of the whole index with this field zero
	headLength  = 16 // bytes of the whole index
	headInodes  = 24
	headDirents = 28
	headFrames  = 32
	headXattrs  = 36
	headBodies  = 40 // bodies' digests
	headEntries = 44 // the tar's entries
	headHeap    = 48 // bytes of the heap
	headStream  = 56 // bytes of the uncompressed tar
	headDiffID  = 64 // sha256 of the uncompressed tar
	headBytes   = 96 // sum of the sizes of all files that have a name
)

// Offsets in an inode's record.
const (
	inKind   = 0
	inBits   = 1
	inMode   = 2
	inUID    = 4
	inGID    = 8
	inNlink  = 12
	inSize   = 16
	inSec    = 24
	inNsec   = 32
	inFlags  = 36 // heap offset of a string with a 16-bit length before it
	inA      = 40 // file: body's offset; directory: first dirent, count; link: text's offset; device: major, minor
	inB      = 48 // file: number of the body's digest; directory: parent
	inXattrs = 56 // first xattr record, count
)

// The bits of an inode.
const (
	bitOpaque  = 1
	bitImplied = 2
)

// Offsets in the other records.
const (
	deName  = 0 // heap offset
	deInode = 4
	deLen   = 8
	deKind  = 10

	frOffset = 0 // in the blob
	frStream = 8 // in the uncompressed tar
	frLen    = 16
	frPlain  = 20 // uncompressed length
	frDigest = 24 // sha256 of the compressed bytes

	xaName    = 0
	xaNameLen = 4
	xaVal     = 8
	xaValLen  = 12
)

// noBody is the digest number of an empty file.
const noBody = 0xffffffff

package layer

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"rhizome/pipeline/tree"
)

const blockSize = 512

// Fields of a ustar header (POSIX.1-2008, pax, "ustar Interchange Format"):
// offset and width in bytes.
type field struct{ at, width int }

var (
	fieldName     = field{0, 100}
	fieldMode     = field{100, 8}
	fieldUID      = field{108, 8}
	fieldGID      = field{116, 8}
	fieldSize     = field{124, 12}
	fieldTime     = field{136, 12}
	fieldSum      = field{148, 8}
	fieldType     = field{156, 1}
	fieldLink     = field{157, 100}
	fieldMagic    = field{257, 8}
	fieldDevMajor = field{329, 8}
	fieldDevMinor = field{337, 8}
	fieldPrefix   = field{345, 155}
)

var typeflags = map[tree.Kind]byte{
	tree.File: '0', tree.Symlink: '2', tree.CharDevice: '3', tree.BlockDevice: '4', tree.Dir: '5', tree.Fifo: '6', tree.Whiteout: '0',
}

// header is one entry of the tar.
type header struct {
	name, link   string
	typeflag     byte
	mode         uint32
	uid, gid     uint32
	size, mtime  int64
	major, minor uint32
	pax          map[string]string
}

// headerOf says what an entry looks like in the tar.
func headerOf(e *tree.Entry, mtime int64) (header, error) {
	h := header{name: e.Path, typeflag: typeflags[e.Kind], mode: e.Mode & 0o7777, uid: e.UID, gid: e.GID, mtime: mtime, pax: map[string]string{}}
	switch {
	case h.typeflag == 0:
		return h, fmt.Errorf("%q: a %s, which no layer carries", e.Path, e.Kind)
	case e.Link != "":
		h.typeflag, h.link = '1', e.Link
	case e.Kind == tree.Dir:
		h.name = strings.TrimPrefix(e.Path+"/", "./")
		if e.Path == "." {
			h.name = "./"
		}
	case e.Kind == tree.Symlink:
		h.link = e.Target
	case e.Kind == tree.File:
		h.size = e.Size()
	default:
		h.major, h.minor = e.Major, e.Minor
	}
	if e.Link != "" {
		return h, nil // the group's first name carries the rest
	}
	if e.Flags != "" {
		h.pax["SCHILY.fflags"] = e.Flags
	}
	for k, v := range e.Xattrs {
		if strings.Contains(k, "=") {
			return h, fmt.Errorf("%q: the name of the extended attribute %q holds a \"=\", which ends names in a tar (POSIX.1-2008, pax, \"pax Extended Header\"); take it away", e.Path, k)
		}
		h.pax["SCHILY.xattr."+k] = v
	}
	return h, nil
}

// blocks writes the header's blocks: a PAX header first where ustar does not
// suffice.
func (h header) blocks() ([]byte, error) {
	b := make([]byte, blockSize)
	h.putNames(b)
	h.putNumber(b, fieldMode, int64(h.mode), "")
	h.putNumber(b, fieldUID, int64(h.uid), "uid")
	h.putNumber(b, fieldGID, int64(h.gid), "gid")
	h.putNumber(b, fieldSize, h.size, "size")
	h.putNumber(b, fieldTime, h.mtime, "mtime")
	b[fieldType.at] = h.typeflag
	if h.typeflag == '3' || h.typeflag == '4' {
		if !fits(fieldDevMajor, int64(h.major)) || !fits(fieldDevMinor, int64(h.minor)) {
			return nil, fmt.Errorf("%q: device %d:%d does not fit a tar", h.name, h.major, h.minor)
		}
		h.putNumber(b, fieldDevMajor, int64(h.major), "")
		h.putNumber(b, fieldDevMinor, int64(h.minor), "")
	}
	seal(b)
	if len(h.pax) == 0 {
		return b, nil
	}
	return append(h.paxBlocks(), b...), nil
}

// putNames puts the names into ustar's fields as far as they go, and into PAX
// records where they do not.
func (h header) putNames(b []byte) {
	prefix, name, ok := splitName(h.name)
	if !ok || !ascii(h.name) {
		h.pax["path"] = h.name
	}
	put(b, fieldName, name)
	put(b, fieldPrefix, prefix)
	if len(h.link) > fieldLink.width || !ascii(h.link) {
		h.pax["linkpath"] = h.link
	}
	put(b, fieldLink, h.link)
	put(b, fieldMagic, "ustar\x0000")
}

// splitName splits a path for the prefix and name fields, at the first slash
// that leaves a name that fits. ok is false, and the name cut off, where there
// is none.
func splitName(p string) (prefix, name string, ok bool) {
	if len(p) <= fieldName.width {
		return "", p, true
	}
	for i := 1; i < len(p)-1 && i <= fieldPrefix.width; i++ {
		if p[i] == '/' && len(p)-i-1 <= fieldName.width {
			return p[:i], p[i+1:], true
		}
	}
	return "", p[:fieldName.width], false
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func put(b []byte, f field, s string) { copy(b[f.at:f.at+f.width], s) }

// fits says whether a number has room in a field: octal digits and a NUL.
func fits(f field, n int64) bool { return n >= 0 && n < 1<<(3*(f.width-1)) }

func (h header) putNumber(b []byte, f field, n int64, paxKey string) {
	if !fits(f, n) && paxKey != "" {
		h.pax[paxKey] = strconv.FormatInt(n, 10)
		n = 0
	}
	put(b, f, fmt.Sprintf("%0*o", f.width-1, n))
}

// seal computes the checksum: the sum of all bytes, its own taken as spaces.
func seal(b []byte) {
	put(b, fieldSum, "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	put(b, fieldSum, fmt.Sprintf("%06o\x00 ", sum))
}

// paxBlocks is an extended header (typeflag x) of the records, sorted.
func (h header) paxBlocks() []byte {
	keys := make([]string, 0, len(h.pax))
	for k := range h.pax {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var body strings.Builder
	for _, k := range keys {
		body.WriteString(paxRecord(k, h.pax[k]))
	}
	ext := header{name: "PaxHeaders.0/" + h.paxName(), typeflag: 'x', mode: 0o644, size: int64(body.Len()), mtime: 0}
	b, _ := ext.blocks() // it has no device number, and so cannot fail
	b = append(b, body.String()...)
	return append(b, make([]byte, padding(int64(body.Len())))...)
}

// paxName is the last part of the name, as long as it may be.
func (h header) paxName() string {
	name := strings.TrimSuffix(h.name, "/")
	name = name[strings.LastIndexByte(name, '/')+1:]
	if room := fieldName.width - len("PaxHeaders.0/"); len(name) > room {
		name = name[:room]
	}
	if !ascii(name) {
		return "entry"
	}
	return name
}

// paxRecord is "LENGTH KEY=VALUE\n", the length that of the whole record.
func paxRecord(k, v string) string {
	n := len(k) + len(v) + 3
	for len(strconv.Itoa(n))+len(k)+len(v)+3 != n {
		n = len(strconv.Itoa(n)) + len(k) + len(v) + 3
	}
	return strconv.Itoa(n) + " " + k + "=" + v + "\n"
}

func padding(size int64) int64 { return -size & (blockSize - 1) }

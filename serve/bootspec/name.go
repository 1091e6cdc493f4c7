package bootspec

import (
	"path"
	"strings"
)

// maxName is the longest name looked at, in bytes. A TFTP request holds 512 in
// all (RFC 1350 packets), and no firmware sends longer ones.
const maxName = 1024

// Clean turns a name as firmware mangles it into the absolute path that it
// means. The path holds no "..", backslash or control character. It is empty when the name
// cannot be a path.
//
// Seen: no leading slash or several (PXE ROMs), backslashes and drive letters
// (Windows' boot manager, some UEFI), 0xff at the end (ROMs that read option 67
// past its length), a whole URL. Folders in front of the path are match's to
// judge.
func Clean(name string) string {
	name = trimTail(name)
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, isControl) {
		return ""
	}
	name = strings.ReplaceAll(dropOrigin(name), `\`, "/")
	return path.Clean("/" + name)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// dropOrigin removes "tftp://host/" and "C:".
func dropOrigin(name string) string {
	for _, scheme := range [...]string{"tftp://", "http://"} {
		if rest, ok := strings.CutPrefix(name, scheme); ok {
			_, file, _ := strings.Cut(rest, "/")
			return file
		}
	}
	if len(name) > 1 && name[1] == ':' {
		return name[2:]
	}
	return name
}

// trimTail cuts what ROMs leave behind a name: white space, and the END of the
// options. It goes by bytes, since 0xff is no UTF-8.
func trimTail(name string) string {
	for name != "" && strings.IndexByte("\xff \r\n\t", name[len(name)-1]) >= 0 {
		name = name[:len(name)-1]
	}
	return name
}

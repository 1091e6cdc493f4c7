package bootspec

import (
	"path"
	"strings"
)

// maxName is the longest name looked at, in bytes. A TFTP request holds 512 in
// all (RFC 1350 packets), and no firmware sends longer ones.
const maxName = 1024

// oldRoots are folders of servers that firmware was told to ask for before, in
// recipes of other systems and of this project's forebear. They are tried with
// and without.
var oldRoots = [...]string{"/diskless/tftp", "/tftpboot", "/var/lib/tftpboot", "/var/lib/tftp", "/srv/tftp", "/srv/tftpboot"}

// Clean turns a name as firmware mangles it into the absolute paths it may
// mean, likeliest first. None of them holds "..", a backslash or a control
// character. An empty result means that the name cannot be a path.
//
// Seen: no leading slash or several (PXE ROMs), backslashes and drive letters
// (Windows' boot manager, some UEFI), 0xff at the end (ROMs that read option 67
// past its length), a whole URL, and the export's path in front (FreeBSD's
// loader: root path plus file).
func Clean(name, node string) []string {
	p := unmangle(name)
	if p == "" {
		return nil
	}
	found := []string{p}
	for _, root := range oldRoots {
		found = appendBelow(found, p, root)
	}
	if node != "" && !strings.Contains(node, "/") {
		found = appendBelow(found, p, "/nodes/"+node)
	}
	return found
}

func appendBelow(found []string, p, root string) []string {
	if rest, ok := strings.CutPrefix(p, root+"/"); ok {
		return append(found, "/"+rest)
	}
	return found
}

func unmangle(name string) string {
	name = strings.TrimRight(name, "\xff \r\n\t")
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

package layerfmt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Names with a meaning in a layer (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	// aufsPrefix begins AUFS's own files, which every engine leaves out.
	aufsPrefix = ".wh..wh."
)

// plainName says whether a string can be a name in a directory.
func plainName(s string) bool {
	return nameShape(s) && strings.IndexByte(s, '/') < 0 && strings.IndexByte(s, 0) < 0
}

// nameShape is plainName without a look at the bytes between, which OpenIndex
// takes at all names together.
func nameShape(s string) bool {
	return s != "" && len(s) <= MaxName && (s[0] != '.' || s != "." && s != "..")
}

// cleanPath turns a tar's name, "./etc//rc.conf" or "etc/", into "etc/rc.conf"
// and the root into "". It refuses what no layer may hold.
func cleanPath(name string) (string, error) {
	if err := refuseName(name); err != nil {
		return "", err
	}
	if isClean(name) {
		return name, nil
	}
	var parts []string
	for _, p := range strings.Split(name, "/") {
		switch p {
		case "", ".":
		case "..":
			return "", errors.New("it leads out of the root through \"..\"")
		default:
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "/"), checkParts(parts)
}

func refuseName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case name[0] == '/':
		return errors.New("an absolute path; make the tar with paths relative to the root")
	case len(name) > MaxPath:
		return fmt.Errorf("a path of %d bytes; at most %d are allowed", len(name), MaxPath)
	case !utf8.ValidString(name):
		return errors.New("its name is not UTF-8; rename the file")
	case strings.IndexByte(name, 0) >= 0:
		return errors.New("a NUL byte in its name")
	}
	return nil
}

// isClean is the quick way out for names as our own writer makes them.
func isClean(name string) bool {
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		if p := name[start:i]; p == "" || p[0] == '.' || len(p) > MaxName {
			return false
		}
		start = i + 1
	}
	return true
}

func checkParts(parts []string) error {
	for i, p := range parts {
		if len(p) > MaxName {
			return fmt.Errorf("a name of %d bytes; at most %d are allowed", len(p), MaxName)
		}
		if i < len(parts)-1 && strings.HasPrefix(p, whiteoutPrefix) {
			return fmt.Errorf("it lies in %q, and a whiteout holds nothing", p)
		}
	}
	return nil
}

// deviceBelongs says whether a path is a place for device nodes: in /dev, or
// in the dev of a chroot such as var/spool/postfix/dev, or in the devices of
// an old udev.
func deviceBelongs(path string) bool {
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		if p == "dev" || p == "devices" {
			return true
		}
	}
	return false
}

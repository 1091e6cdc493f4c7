package httpd

import (
	"path"
	"strings"
)

// route is what a URL's path means: a blob, or a name for the boot spec to judge.
type route struct {
	// digest is "sha256:" and 64 hexadecimal digits; empty for a file.
	digest string
	name   string
}

// routeOf maps a decoded path. It never fails: what is no blob is a name, and a
// name that the boot spec does not hold leads nowhere.
func routeOf(p string) route {
	if rest, ok := strings.CutPrefix(p, "/blobs/"); ok {
		if d := strings.Replace(rest, "/", ":", 1); isDigest(d) {
			return route{digest: d}
		}
	}
	if rest, ok := strings.CutPrefix(p, "/files/"); ok {
		return route{name: "/" + rest}
	}
	return route{name: p}
}

// isDigest says whether s is a sha256 digest as OCI writes it (image-spec,
// descriptor.md, "Digests").
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// contentType is what firmware goes by: UEFI takes application/efi for a program
// (UEFI specification 24.7.3), iPXE looks into the file itself.
func contentType(name string) string {
	switch strings.ToLower(path.Ext(name)) {
	case ".efi":
		return "application/efi"
	case ".ipxe", ".cfg", ".txt":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

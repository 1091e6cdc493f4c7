package bootspec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rhizome/registry/imagefmt"
)

// Decision is what a name means to one machine: exactly one of Path, Text and
// Reason is set.
type Decision struct {
	// Path is a file of the node's merged root that its boot spec names.
	Path string
	// Text is generated from the boot spec; Name is what it goes by.
	Text []byte
	Name string
	// Reason is a sentence that says why there is nothing under that name, and
	// Nearest are names, at most three, that there is something under.
	Reason  string
	Nearest []string
}

// Decide lays a name beside the machine's boot spec. Files win over generated
// texts, so that an image may bring a pxelinux configuration of its own.
func Decide(m Machine, name string) Decision {
	asked := Clean(name)
	if asked == "" {
		return Decision{Reason: fmt.Sprintf("%.64q is not a file name", name)}
	}
	allowed := Allowed(m.Node.Boot)
	if p := match(allowed, asked); p != "" {
		return Decision{Path: p, Name: p}
	}
	if text := generate(m, asked); text != nil {
		return Decision{Text: text, Name: asked}
	}
	return refuse(m, asked, allowed)
}

func refuse(m Machine, asked string, allowed []string) Decision {
	reason := fmt.Sprintf("%q is not a file that the boot spec of node %q names", asked, m.Node.Name)
	if why := normalProbe(asked); why != "" {
		reason += " (" + why + ")"
	}
	return Decision{Reason: reason, Nearest: nearest(asked, append(allowed, generatedNames(m)...))}
}

// normalProbe tells the misses that belong to a healthy boot.
func normalProbe(p string) string {
	switch {
	case path.Base(path.Dir(p)) == "pxelinux.cfg":
		return "normal: pxelinux tries up to eleven names for its configuration, and takes the one by MAC or address"
	case path.Base(p) == "autoexec.ipxe":
		return "normal: iPXE looks for it before it does as DHCP says"
	}
	return ""
}

// Allowed lists the paths that a boot spec gives out, cleaned, sorted, without
// repetition.
func Allowed(b imagefmt.Boot) []string {
	named := append([]string{b.Kernel, b.Initrd, b.BIOS, b.UEFI, b.UEFIArm64}, b.Files...)
	allowed := make([]string, 0, len(named))
	for _, p := range named {
		if p != "" {
			allowed = append(allowed, path.Clean("/"+p))
		}
	}
	slices.Sort(allowed)
	return slices.Compact(allowed)
}

// match finds the allowed path that is meant: the very path; else the longest
// that the asked one ends in, since folders come before it in many ways (the
// /diskless/tftp and /tftpboot of old recipes, the export's path from FreeBSD's loader, its
// own folder from pxelinux, even before a path with a slash); else the only one of
// that base name (DHCP's file field often says "pxelinux.0" alone, and pxelinux
// asks for its modules beside itself, where Debian does not keep them). Letters'
// case is told apart only where that leads somewhere: FAT does not, nor does UEFI.
func match(allowed []string, asked string) string {
	if slices.Contains(allowed, asked) {
		return asked
	}
	if a := longestEnd(allowed, asked); a != "" {
		return a
	}
	return onlyBase(allowed, path.Base(asked))
}

func longestEnd(allowed []string, asked string) string {
	found := ""
	for _, a := range allowed {
		if len(a) > len(found) && len(a) <= len(asked) && strings.EqualFold(asked[len(asked)-len(a):], a) {
			found = a
		}
	}
	return found
}

// onlyBase returns the one allowed path of a base name, or none when several
// have it.
func onlyBase(allowed []string, base string) string {
	found := ""
	for _, a := range allowed {
		if !strings.EqualFold(path.Base(a), base) {
			continue
		}
		if found != "" {
			return ""
		}
		found = a
	}
	return found
}

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
	tried := Clean(name, m.Node.Name)
	if len(tried) == 0 {
		return Decision{Reason: fmt.Sprintf("%.64q is not a file name", name)}
	}
	allowed := Allowed(m.Node.Boot)
	if p := match(allowed, tried); p != "" {
		return Decision{Path: p, Name: p}
	}
	if d, ok := generate(m, tried); ok {
		return d
	}
	return refuse(m, tried, allowed)
}

func refuse(m Machine, tried, allowed []string) Decision {
	reason := fmt.Sprintf("%q is not a file that the boot spec of node %q names", tried[0], m.Node.Name)
	if why := normalProbe(tried[0]); why != "" {
		reason += " (" + why + ")"
	}
	return Decision{Reason: reason, Nearest: nearest(tried[len(tried)-1], append(allowed, generatedNames(m)...))}
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

// match finds the allowed path that is meant: the very path, else the same but
// for its case (FAT habits of UEFI), else the only one with that base name
// (DHCP's file field often says "pxelinux.0" alone, and pxelinux asks for its
// modules beside itself, where Debian does not keep them).
func match(allowed, tried []string) string {
	same := []func(a, p string) bool{
		func(a, p string) bool { return a == p },
		strings.EqualFold,
		func(a, p string) bool { return path.Base(a) == path.Base(p) },
	}
	for _, eq := range same {
		for _, p := range tried {
			if a := only(allowed, p, eq); a != "" {
				return a
			}
		}
	}
	return ""
}

// only returns the one allowed path that fits, or none when several do.
func only(allowed []string, p string, eq func(a, p string) bool) string {
	found := ""
	for _, a := range allowed {
		if !eq(a, p) {
			continue
		}
		if found != "" {
			return ""
		}
		found = a
	}
	return found
}

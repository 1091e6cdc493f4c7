package dhcp

import (
	"fmt"
	"path"
	"strings"

	"rhizome/registry/imagefmt"
)

// bootFile returns what a client is to fetch, as the boot file field holds it:
// a path for TFTP or a URL. An empty one comes with the reason.
func bootFile(cl Client, m Machine, c Config) (file, why string) {
	if !cl.boots() {
		return "", ""
	}
	if cl.Kind == IPXE && runsScript(cl.Firmware, m.Node.Boot) {
		return c.script(m), ""
	}
	program := programFor(cl.Firmware, m.Node.Boot)
	switch {
	case program == "":
		return "", fmt.Sprintf("the boot spec of node %q has no boot program for %s", m.Node.Name, cl.Firmware)
	case cl.Kind == IPXE && isIPXEProgram(program):
		return "", fmt.Sprintf("the boot spec of node %q names no kernel: iPXE would fetch iPXE for ever", m.Node.Name)
	}
	if cl.Kind == HTTPBoot {
		return c.file(m, program), ""
	}
	return program, ""
}

func programFor(f Firmware, b imagefmt.Boot) string {
	switch f {
	case BIOS:
		return b.BIOS
	case UEFI:
		return b.UEFI
	case UEFIArm64:
		return b.UEFIArm64
	}
	return ""
}

// runsScript says whether iPXE goes on by itself with a script. It does where
// the boot program would be iPXE once more. Where a recipe names another
// program (pxelinux, FreeBSD's loader), a ROM that happens to be iPXE fetches
// that, as any ROM would.
func runsScript(f Firmware, b imagefmt.Boot) bool {
	program := programFor(f, b)
	return b.Kernel != "" && (program == "" || isIPXEProgram(program))
}

// isIPXEProgram knows the names that iPXE's build gives its programs.
func isIPXEProgram(p string) bool {
	base := path.Base(p)
	for _, prefix := range []string{"ipxe", "undionly", "snponly", "snp."} {
		if strings.HasPrefix(base, prefix) {
			return true
		}
	}
	return strings.HasSuffix(base, "pxe") && base != "pxe"
}

// rootPath is option 17. FreeBSD's kernel takes "ip:/path" and "/path" alone,
// its loader and Linux take "ip:/path" too.
func rootPath(m Machine, c Config) string {
	return c.server(m).String() + ":/nodes/" + m.Node.Name
}

// kenv fills in what a boot spec leaves to the server.
func kenv(m Machine, c Config) []string {
	r := strings.NewReplacer("{server}", c.server(m).String(), "{address}", m.Node.Address.String(),
		"{name}", m.Node.Name, "{digest}", m.Digest)
	out := make([]string, len(m.Node.Boot.Kenv))
	for i, kv := range m.Node.Boot.Kenv {
		out[i] = r.Replace(kv)
	}
	return out
}

// mountOptions is option 130 of FreeBSD's kernel, which ignores the kenv that
// holds the same for its loader.
func mountOptions(m Machine, c Config) string {
	for _, kv := range kenv(m, c) {
		if v, ok := strings.CutPrefix(kv, "boot.nfsroot.options="); ok {
			return v
		}
	}
	return ""
}

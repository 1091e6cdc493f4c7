package bootspec

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

// BaseURL is where the machine reaches this server over HTTP, without a slash
// at the end.
func BaseURL(m Machine) string {
	if m.HTTP != "" {
		return m.HTTP
	}
	return "http://" + host(m.Cluster.Network.Server)
}

func host(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// FileURL is the URL of a file of the boot spec, as UEFI HTTP boot and iPXE
// want it in option 67. The extension stays last: OVMF goes by it.
func FileURL(m Machine, p string) string {
	u := url.URL{Path: "/files" + path.Clean("/"+p)}
	return BaseURL(m) + u.EscapedPath()
}

// ScriptURL is the URL of the machine's iPXE script.
func ScriptURL(m Machine) string { return BaseURL(m) + "/boot.ipxe" }

// Cmdline is the kernel's command line with serve's words filled in. It is one
// line: whatever would end a line of a script is a space.
func Cmdline(m Machine) string {
	r := strings.NewReplacer(
		"{server}", m.Cluster.Network.Server.String(),
		"{address}", m.Node.Address.String(),
		"{name}", m.Node.Name,
		"{digest}", m.Digest,
	)
	return oneLine(r.Replace(m.Node.Boot.Cmdline))
}

func oneLine(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, s))
}

// IPXE writes the machine's iPXE script (ipxe.org/scripting). It never drops
// into a shell: a node in a rack that could not fetch its kernel tries again.
func IPXE(m Machine) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "#!ipxe\necho %s: node %s, image %s\n:start\n", oneLine(m.Cluster.Name), oneLine(m.Node.Name), m.Digest)
	switch {
	case m.Node.Boot.Kernel != "":
		writeKernel(&b, m)
	case bootable(m):
		writeChain(&b, m)
	default:
		b.WriteString("echo The boot spec of this node names neither a kernel nor a loader.\n")
	}
	b.WriteString(":failed\necho Booting failed. Trying again in 5 seconds.\nsleep 5\nimgfree\ngoto start\n")
	return []byte(b.String())
}

// writeKernel boots Linux. "initrd=" names the image for UEFI kernels, which
// look it up by name; BOOTIF tells the initramfs which card this is.
func writeKernel(b *strings.Builder, m Machine) {
	boot := m.Node.Boot
	args := []string{"kernel", FileURL(m, boot.Kernel)}
	if boot.Initrd != "" {
		args = append(args, "initrd=initrd")
	}
	args = append(args, withBootif(Cmdline(m), "BOOTIF=01-${netX/mac:hexhyp}")...)
	fmt.Fprintf(b, "%s || goto failed\n", strings.Join(args, " "))
	if boot.Initrd != "" {
		fmt.Fprintf(b, "initrd --name initrd %s || goto failed\n", FileURL(m, boot.Initrd))
	}
	b.WriteString("boot || goto failed\n")
}

// withBootif adds a BOOTIF unless the recipe has one.
func withBootif(cmdline, bootif string) []string {
	args := strings.Fields(cmdline)
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "BOOTIF=") }) {
		return args
	}
	return append(args, bootif)
}

// writeChain hands over to a loader that fetches its kernel itself: FreeBSD's
// pxeboot or loader.efi, by what iPXE says of its own platform.
func writeChain(b *strings.Builder, m Machine) {
	boot := m.Node.Boot
	b.WriteString("iseq ${platform} efi && goto efi ||\n")
	writeLoader(b, m, boot.BIOS, "BIOS")
	b.WriteString(":efi\niseq ${buildarch} arm64 && goto arm64 ||\n")
	writeLoader(b, m, boot.UEFI, "UEFI on x64")
	b.WriteString(":arm64\n")
	writeLoader(b, m, boot.UEFIArm64, "UEFI on arm64")
}

func writeLoader(b *strings.Builder, m Machine, loader, firmware string) {
	if loader == "" {
		fmt.Fprintf(b, "echo The boot spec of this node has no boot program for %s.\ngoto failed\n", firmware)
		return
	}
	fmt.Fprintf(b, "chain --autofree %s || goto failed\ngoto failed\n", FileURL(m, loader))
}

// PXELinux writes the machine's pxelinux configuration (syslinux(1),
// pxelinux.txt). "::" keeps pxelinux 6 from putting its own folder before a path,
// which it does even before a slash; IPAPPEND 2 adds BOOTIF.
func PXELinux(m Machine) []byte {
	boot := m.Node.Boot
	var b strings.Builder
	fmt.Fprintf(&b, "# %s: node %s, image %s\nDEFAULT linux\nPROMPT 0\nTIMEOUT 0\n", oneLine(m.Cluster.Name), oneLine(m.Node.Name), m.Digest)
	fmt.Fprintf(&b, "LABEL linux\n  KERNEL ::%s\n", path.Clean("/"+boot.Kernel))
	if boot.Initrd != "" {
		fmt.Fprintf(&b, "  INITRD ::%s\n", path.Clean("/"+boot.Initrd))
	}
	if args := Cmdline(m); args != "" {
		fmt.Fprintf(&b, "  APPEND %s\n", args)
	}
	b.WriteString("  IPAPPEND 2\n")
	return []byte(b.String())
}

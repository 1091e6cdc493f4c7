package bootspec

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
)

// generate writes the text that goes by a name, or nothing.
func generate(m Machine, asked string) []byte {
	switch {
	case slices.Contains(ipxeNames(m), path.Base(asked)):
		return IPXE(m)
	case isPXELinuxConfig(m, asked):
		return PXELinux(m)
	}
	return nil
}

// ipxeNames are the names that a script goes by; autoexec.ipxe is asked for by
// iPXE itself, and the node's own name serves whoever reads a server's log.
func ipxeNames(m Machine) []string {
	names := []string{"boot.ipxe", "autoexec.ipxe"}
	if n := m.Node.Name; n != "" && !strings.ContainsAny(n, "/\\") {
		names = append(names, n+".ipxe")
	}
	return names
}

func generatedNames(m Machine) []string {
	if !bootable(m) {
		return nil
	}
	return []string{"/boot.ipxe", "/pxelinux.cfg/default"}
}

func bootable(m Machine) bool {
	b := m.Node.Boot
	return b.Kernel != "" || b.BIOS != "" || b.UEFI != "" || b.UEFIArm64 != ""
}

// isPXELinuxConfig says whether pxelinux means this node: by MAC with the ARP
// type in front, by address in hexadecimal, or by default (syslinux, pxelinux.txt).
func isPXELinuxConfig(m Machine, p string) bool {
	if path.Base(path.Dir(p)) != "pxelinux.cfg" || m.Node.Boot.Kernel == "" {
		return false
	}
	base := path.Base(p)
	if base == "default" || base == hexAddress(m.Node.Address) {
		return true
	}
	return slices.ContainsFunc(m.Node.MACs, func(mac string) bool {
		return strings.EqualFold(base, "01-"+strings.ReplaceAll(mac, ":", "-"))
	})
}

func hexAddress(a netip.Addr) string {
	if !a.Is4() {
		return "no address"
	}
	return fmt.Sprintf("%X", a.AsSlice())
}

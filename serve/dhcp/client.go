package dhcp

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Kind is the program that asks: a machine asks several times a boot, each time
// as another one.
type Kind uint8

// The kinds of client.
const (
	// Plain is any DHCP client without a part of its own here: dhclient,
	// dhcpcd, systemd, a Linux kernel's ip=dhcp.
	Plain Kind = iota
	// PXE is a network card's ROM, or UEFI's network boot over TFTP.
	PXE
	// HTTPBoot is UEFI's boot over HTTP.
	HTTPBoot
	// IPXE is iPXE, from a ROM or fetched by one.
	IPXE
	// FreeBSDLoader is pxeboot or loader.efi.
	FreeBSDLoader
	// FreeBSDKernel is a kernel with options BOOTP.
	FreeBSDKernel
	// Ipconfig is klibc's ipconfig, of Debian's initramfs.
	Ipconfig
	// Udhcpc is busybox's client.
	Udhcpc
)

// Firmware is what a boot program must have been made for.
type Firmware uint8

// The firmwares that there are boot programs for.
const (
	NoFirmware Firmware = iota
	BIOS
	UEFI
	UEFIArm64
	// OtherFirmware cannot be booted: UEFI of 32 bits, Itanium, RISC-V ...
	OtherFirmware
)

// Client is who asks.
type Client struct {
	Kind     Kind
	Firmware Firmware
	// Name is for people: "UEFI x64 PXE", "FreeBSD loader".
	Name string
}

// classify tells clients apart by options 60, 77, 93 and 175.
func classify(m *dhcpv4.DHCPv4) Client {
	class := string(m.Options.Get(dhcpv4.OptionClassIdentifier))
	fw := firmware(m, class)
	switch {
	case isIPXE(m):
		return Client{IPXE, fw, "iPXE (" + fw.String() + ")"}
	case isFreeBSDLoader(m, class):
		return Client{Kind: FreeBSDLoader, Name: "FreeBSD loader"}
	case strings.HasPrefix(class, "HTTPClient"):
		return Client{HTTPBoot, fw, fw.String() + " HTTP boot"}
	case strings.HasPrefix(class, "PXEClient"):
		return Client{PXE, fw, fw.String() + " PXE"}
	}
	return classifyOS(m, class)
}

func classifyOS(m *dhcpv4.DHCPv4, class string) Client {
	switch {
	case strings.HasPrefix(class, "FreeBSD:"):
		return Client{Kind: FreeBSDKernel, Name: "FreeBSD kernel"}
	case strings.HasPrefix(class, "Linux ipconfig"):
		return Client{Kind: Ipconfig, Name: "Linux ipconfig"}
	case strings.HasPrefix(class, "udhcp"):
		return Client{Kind: Udhcpc, Name: "udhcpc"}
	case class != "":
		return Client{Name: printable(class)}
	case len(m.Options.Get(dhcpv4.OptionDHCPMessageType)) == 0:
		return Client{Name: "BOOTP client"}
	}
	return Client{Name: "DHCP client"}
}

// isIPXE: iPXE sends its features in option 175 and the user class "iPXE",
// without the length that RFC 3004 wants before it.
func isIPXE(m *dhcpv4.DHCPv4) bool {
	user := string(m.Options.Get(dhcpv4.OptionUserClassInformation))
	return m.Options.Has(dhcpv4.GenericOptionCode(optIPXE)) || user == "iPXE" || user == "\x04iPXE" || user == "gPXE"
}

// isFreeBSDLoader: stand/libsa/bootp.c calls itself a bare "PXEClient" and
// sends none of the options that RFC 4578 asks of one; since 2010 it adds its
// user class.
func isFreeBSDLoader(m *dhcpv4.DHCPv4, class string) bool {
	user := string(m.Options.Get(dhcpv4.OptionUserClassInformation))
	return class == "PXEClient" && !m.Options.Has(dhcpv4.OptionClientSystemArchitectureType) &&
		(user == "\x07FreeBSD" || user == "")
}

// firmware reads the architecture from option 93, or from the class of a ROM
// that forgot it ("PXEClient:Arch:00007:UNDI:003016").
func firmware(m *dhcpv4.DHCPv4, class string) Firmware {
	if v := m.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(v) >= 2 {
		return byArch(iana.Arch(binary.BigEndian.Uint16(v)))
	}
	parts := strings.Split(class, ":")
	if len(parts) < 3 || parts[1] != "Arch" {
		return BIOS
	}
	n, err := strconv.ParseUint(parts[2], 10, 16)
	if err != nil {
		return OtherFirmware
	}
	return byArch(iana.Arch(n))
}

// byArch follows what firmware does rather than the registry alone: RFC 4578's
// erratum 4625 swapped 7 and 9, and x64 machines send either.
func byArch(a iana.Arch) Firmware {
	switch a {
	case iana.INTEL_X86PC, iana.INTEL_X86PC_HTTP:
		return BIOS
	case iana.EFI_X86_64, iana.EFI_BC, iana.EFI_X86_64_HTTP, iana.EFI_BC_HTTP:
		return UEFI
	case iana.EFI_ARM64, iana.EFI_ARM64_HTTP:
		return UEFIArm64
	}
	return OtherFirmware
}

// String names a firmware as its users do.
func (f Firmware) String() string {
	switch f {
	case BIOS:
		return "BIOS"
	case UEFI:
		return "UEFI x64"
	case UEFIArm64:
		return "UEFI arm64"
	case OtherFirmware:
		return "other firmware"
	}
	return "no firmware"
}

// boots says whether the client fetches a boot program.
func (c Client) boots() bool { return c.Kind == PXE || c.Kind == HTTPBoot || c.Kind == IPXE }

// printable makes a client's own words fit for a log.
func printable(s string) string {
	const most = 40
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

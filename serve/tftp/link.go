package tftp

import (
	"net"
	"net/netip"
)

// ethernet is the MTU that is taken where the interface's is not known, in bytes.
const ethernet = 1500

// boundsFor gives the largest block that crosses the link in one packet: the
// smaller MTU less the headers of IP, UDP and TFTP. Firmware often cannot put
// fragments together again.
func boundsFor(link, configured int, local netip.Addr) bounds {
	mtu := link
	if configured > 0 {
		mtu = min(mtu, configured)
	}
	headers := 20 + 8 + header
	if local.Is6() {
		headers = 40 + 8 + header
	}
	return bounds{block: max(plainBlock, min(mtu-headers, maxBlock)), window: maxWindow, windowBytes: windowMemory}
}

// linkMTU finds the MTU of the interface that has an address.
func linkMTU(local netip.Addr) int {
	links, err := net.Interfaces()
	if err != nil {
		return ethernet
	}
	for _, link := range links {
		if hasAddr(link, local) {
			return link.MTU
		}
	}
	return ethernet
}

func hasAddr(link net.Interface, want netip.Addr) bool {
	addrs, err := link.Addrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && (p.Addr() == want || (link.Flags&net.FlagLoopback != 0 && p.Contains(want))) {
			return true
		}
	}
	return false
}

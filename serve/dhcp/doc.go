// Package dhcp answers the DHCP and BOOTP requests of the machines of a cluster
// image, and of no others: each firmware, loader and kernel gets the address,
// boot program and options that it needs, and every step is an event.
//
// A decision is a pure function (Decide) of the request, of where it came in,
// of the machine that its MAC names, and of the configuration. Server is the
// thin loop of sockets around it; Explain asks the same function without a
// packet, for serve's dry run.
//
// Specifications: RFC 951 and 1542 (BOOTP), RFC 2131 and 2132 (DHCP), RFC 3046
// (relay agents), RFC 3396 (long options), RFC 3442 (classless routes),
// RFC 4361 and 6842 (client identifiers), RFC 4578 (PXE options), RFC 5107
// (server identifier override), the PXE specification 2.1, the UEFI
// specification's HTTP boot, RFC 4861 (router advertisements), RFC 826 (ARP).
package dhcp

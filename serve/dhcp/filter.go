package dhcp

import "golang.org/x/net/bpf"

// filter keeps in the kernel what is not of interest: serve's own NFS traffic
// passes the same interface.
func (t tap) filter() []bpf.Instruction {
	kind := bpf.LoadAbsolute{Off: 12, Size: 2}
	take, drop := bpf.RetConstant{Val: maxRequest}, bpf.RetConstant{}
	unless := func(value uint32, skip uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: skip}
	}
	switch t {
	case tapARP:
		return []bpf.Instruction{kind, unless(etherARP, 1), take, drop}
	case tapSolicitations:
		return []bpf.Instruction{
			kind, unless(etherIPv6, 5),
			bpf.LoadAbsolute{Off: etherLen + 6, Size: 1}, unless(protoICMPv6, 3),
			bpf.LoadAbsolute{Off: etherLen + ip6Len, Size: 1}, unless(routerSolicitation, 1),
			take, drop,
		}
	case tapReplies:
		return []bpf.Instruction{
			kind, unless(etherIPv4, 8),
			bpf.LoadAbsolute{Off: etherLen + 9, Size: 1}, unless(protoUDP, 6),
			bpf.LoadAbsolute{Off: etherLen + 6, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4}, // a later fragment
			bpf.LoadMemShift{Off: etherLen},
			bpf.LoadIndirect{Off: etherLen + 2, Size: 2}, unless(clientPort, 1),
			take, drop,
		}
	}
	return []bpf.Instruction{drop}
}

package dhcp

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/boot"

	"golang.org/x/net/bpf"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

var (
	serverMAC = net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0xf0}
	nodeMAC   = net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1}
	serverIP  = netip.MustParseAddr("10.77.0.1")
	nodeIP    = netip.MustParseAddr("10.77.0.51")
)

func frameTo(port uint16, payload string) []byte {
	return appendFrame(nil, serverMAC, nodeMAC, netip.AddrPortFrom(serverIP, 67), netip.AddrPortFrom(nodeIP, port),
		func(b []byte) []byte { return append(b, payload...) })
}

func TestAFrameHasTheHeadersThatTheKernelWouldHaveMade(t *testing.T) {
	// As Linux sends it from a UDP socket, but for the identification; the
	// checksums were worked out by another program.
	want, err := hex.DecodeString("525400770001" + "5254007700f0" + "0800" +
		"4500001f00004000" + "40112601" + "0a4d0001" + "0a4d0033" + "00430044000b" + "2621" + "616263")
	if err != nil {
		t.Fatal(err)
	}
	if got := frameTo(68, "abc"); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// A receiver that adds up a correct packet gets all ones (RFC 1071, section 1).
func TestChecksumsOfEveryLengthHold(t *testing.T) {
	for n := range 400 {
		p := frameTo(68, string(bytes.Repeat([]byte{byte(n), 0xff}, n)))[etherLen:]
		if got := fold(sum(p[:ipLen])); got != 0xffff {
			t.Fatalf("the IP header of %d bytes adds up to %04x", n, got)
		}
		udp := p[ipLen:]
		if got := fold(sum(p[12:20]) + protoUDP + uint32(len(udp)) + sum(udp)); got != 0xffff {
			t.Fatalf("the datagram of %d bytes adds up to %04x", n, got)
		}
		h, err := ipv4.ParseHeader(p)
		if err != nil || h.TotalLen != len(p) || h.Flags != ipv4.DontFragment || h.Protocol != protoUDP {
			t.Fatalf("the header reads as %v: %v", h, err)
		}
	}
}

func TestAChecksumOfZeroIsSentAsAllOnes(t *testing.T) {
	for i := range 65536 {
		p := frameTo(68, string([]byte{byte(i >> 8), byte(i)}))
		if check := p[etherLen+ipLen+6:][:2]; check[0] == 0 && check[1] == 0 {
			t.Fatalf("payload %04x has the checksum 0, which says that there is none", i)
		}
	}
}

// run lets a frame through a tap's filter, as the kernel would.
func (tp tap) takes(t *testing.T, frame []byte) bool {
	t.Helper()
	vm, err := bpf.NewVM(tp.filter())
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(frame)
	return err == nil && n > 0
}

func solicitationFrame(src netip.Addr) []byte {
	b := appendEther(nil, allRouters, nodeMAC, etherIPv6)
	dst := netip.MustParseAddr("ff02::2")
	m := icmp.Message{Type: ipv6.ICMPTypeRouterSolicitation, Body: &icmp.RawBody{Data: make([]byte, 4)}}
	body, err := m.Marshal(icmp.IPv6PseudoHeader(src.AsSlice(), dst.AsSlice()))
	if err != nil {
		panic(err)
	}
	b = append(b, 6<<4, 0, 0, 0, 0, byte(len(body)), protoICMPv6, hopLimit)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, body...)
}

func TestTapsTakeWhatTheyAreForAndNothingElse(t *testing.T) {
	later := frameTo(68, "x")
	later[etherLen+7] = 8 // a later fragment
	all := map[string]struct {
		frame []byte
		taker tap
	}{
		"an ARP request":         {arpRequest(nodeMAC, serverIP, nodeIP), tapARP},
		"a router solicitation":  {solicitationFrame(netip.MustParseAddr("fe80::1")), tapSolicitations},
		"a reply to a client":    {frameTo(68, "x"), tapReplies},
		"a request to a server":  {frameTo(67, "x"), tapNone},
		"a later fragment":       {later, tapNone},
		"a router advertisement": {advertisement(serverMAC, nodeMAC, netip.MustParseAddr("fe80::1")), tapNone},
	}
	for name, c := range all {
		for _, tp := range []tap{tapNone, tapARP, tapSolicitations, tapReplies} {
			if got, want := tp.takes(t, c.frame), tp == c.taker && tp != tapNone; got != want {
				t.Errorf("tap %d takes %s: %v", tp, name, got)
			}
		}
	}
}

func TestASolicitationIsAnsweredThatThereIsNoRouter(t *testing.T) {
	src := netip.MustParseAddr("fe80::5054:ff:fe77:1")
	mac, from, ok := solicitation(solicitationFrame(src))
	if !ok || mac.String() != nodeMAC.String() || from != src {
		t.Fatalf("it reads as %v %v %v", mac, from, ok)
	}
	p := advertisement(serverMAC, mac, from)
	h, err := ipv6.ParseHeader(p[etherLen:])
	if err != nil || h.HopLimit != 255 || h.Src.String() != "fe80::5054:ff:fe77:f0" || h.Dst.String() != src.String() {
		t.Fatalf("the header reads as %v: %v", h, err)
	}
	body := p[etherLen+ip6Len:]
	if checksum6(h.Src, h.Dst, body) != 0 {
		t.Error("its checksum is wrong")
	}
	m, err := icmp.ParseMessage(protoICMPv6, body)
	if err != nil || m.Type != ipv6.ICMPTypeRouterAdvertisement {
		t.Fatalf("it reads as %v: %v", m, err)
	}
	if flags, lifetime := body[5], body[6:8]; flags != 0 || !bytes.Equal(lifetime, []byte{0, 0}) {
		t.Errorf("flags %02x, lifetime %x: nodes would take us for a router", flags, lifetime)
	}
}

func TestAWrongChecksumOrHopLimitIsNoSolicitation(t *testing.T) {
	good := solicitationFrame(netip.MustParseAddr("fe80::1"))
	for _, at := range []int{etherLen + 7, etherLen + ip6Len + 2, etherLen + 20} {
		bad := slices.Clone(good)
		bad[at]++
		if _, _, ok := solicitation(bad); ok {
			t.Errorf("a change of byte %d passes", at)
		}
	}
}

func TestTheOwnerOfAnAddressIsReadFromARP(t *testing.T) {
	thief := net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 0x66}
	mac, a, ok := arpSender(arpRequest(thief, nodeIP, serverIP))
	if !ok || a != nodeIP || mac.String() != thief.String() {
		t.Fatalf("it reads as %v %v %v", mac, a, ok)
	}
	if _, _, ok := arpSender(arpRequest(thief, netip.IPv4Unspecified(), nodeIP)); ok {
		t.Error("a probe of RFC 5227 claims nothing")
	}
	m := Machine{Node: imagefmt.Node{Name: "n", Address: nodeIP, MACs: []string{nodeMAC.String()}}}
	if e, ok := conflict(m, thief, serverMAC); !ok || e.Kind != boot.DHCPConflict || e.MAC != thief.String() {
		t.Errorf("the event is %+v", e)
	}
	for _, own := range []net.HardwareAddr{nodeMAC, serverMAC} {
		if _, ok := conflict(m, own, serverMAC); ok {
			t.Errorf("%s is no thief", own)
		}
	}
}

func TestOnlyAForeignServersReplyIsForeign(t *testing.T) {
	ours := func(a netip.Addr) bool { return a == serverIP }
	offer := func(id netip.Addr) []byte {
		l := list{}
		l.keep(optServerID, bytes4(id))
		zero := netip.IPv4Unspecified()
		r := Reply{Your: nodeIP, Next: id, Client: zero, Relay: zero, MAC: nodeMAC, Options: l}
		return r.Append(nil)
	}
	other := netip.MustParseAddr("10.77.0.9")
	if id, ok := foreignServer(offer(other), ours); !ok || id != other {
		t.Errorf("it is %v %v", id, ok)
	}
	if _, ok := foreignServer(offer(serverIP), ours); ok {
		t.Error("we are foreign to ourselves")
	}
	if _, ok := foreignServer(probe(nodeMAC, 1), ours); ok {
		t.Error("a request is taken for a reply")
	}
}

func TestOurProbeIsADiscoverThatAsksForBroadcast(t *testing.T) {
	p, ok := udpPayload(probeFrame(serverMAC, 7), serverPort)
	if !ok {
		t.Fatal("it is no datagram to the server's port")
	}
	r, err := Parse(p)
	if err != nil || !r.IsBroadcast() || r.MessageType().String() != "DISCOVER" || r.ClassIdentifier() != probeClass {
		t.Errorf("it reads as %v: %v", r, err)
	}
}

func TestOneCauseIsToldOnceAWhileEvenIfTheClockJumps(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l := newLimiter(time.Minute, 2, maxCauses, func() time.Time { return now })
	steps := []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, true}, {0, false}, {30 * time.Second, false}, {30 * time.Second, true}, {-time.Hour, true}, {0, true}, {0, false}}
	for i, s := range steps {
		now = now.Add(s.after)
		if got := l.allow("a"); got != s.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestAFloodOfCausesIsBoundedAndPasses(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	l := newLimiter(time.Minute, 1, maxCauses, func() time.Time { return now })
	told := 0
	for i := range 100_000 {
		now = now.Add(time.Microsecond)
		if l.allow(string([]byte{byte(i >> 16), byte(i >> 8), byte(i)})) {
			told++
		}
	}
	if told > maxCauses || len(l.seen) > maxCauses {
		t.Errorf("%d told, %d remembered", told, len(l.seen))
	}
	now = now.Add(2 * time.Minute)
	if !l.allow("new") {
		t.Error("after the flood nothing is told any more")
	}
}

func TestWhatHappensToTheInterfaceIsSaid(t *testing.T) {
	up := state{index: 2, up: true, mac: serverMAC, addrs: []netip.Addr{serverIP}}
	down, bare, anew, other, blank := up, up, up, up, up
	blank.mac = nil
	down.up = false
	bare.addrs = nil
	anew.index = 3
	other.mac = nodeMAC
	for name, c := range map[string]struct {
		was, is state
		want    int
		reopen  bool
	}{
		"nothing": {up, up, 0, false}, "down": {up, down, 1, false}, "up": {down, up, 1, false}, "address lost": {up, bare, 1, false},
		"address back": {bare, up, 1, false}, "gone": {up, state{}, 1, true}, "still gone": {state{}, state{}, 0, false},
		"back": {state{}, up, 1, true}, "made anew": {up, anew, 1, true}, "another MAC": {up, other, 1, true},
		"no MAC": {up, blank, 1, true}, "still no MAC": {blank, blank, 0, false}, "a MAC again": {blank, up, 1, true},
	} {
		if got := differences(c.was, c.is, Config{ServerAddr: serverIP}); len(got) != c.want {
			t.Errorf("%s: it says %q", name, got)
		}
		if c.was.sameLink(c.is) == c.reopen {
			t.Errorf("%s: sockets opened anew: %v", name, !c.reopen)
		}
	}
	if blank.ready() || (state{}).ready() || !down.ready() {
		t.Error("sockets are opened on an interface without a MAC")
	}
}

// Frames come from anybody on the wire: no panic, and what is read lies within
// them.
func FuzzFrames(f *testing.F) {
	f.Add(frameTo(68, "abc"))
	f.Add(arpRequest(nodeMAC, serverIP, nodeIP))
	f.Add(solicitationFrame(netip.MustParseAddr("fe80::1")))
	f.Add(probeFrame(serverMAC, 1))
	f.Fuzz(func(t *testing.T, p []byte) {
		if payload, ok := udpPayload(p, clientPort); ok && len(payload) > len(p)-etherLen-ipLen-udpLen {
			t.Fatal("the payload is longer than the frame")
		}
		if mac, _, ok := arpSender(p); ok && len(mac) != 6 {
			t.Fatal("a MAC of another length")
		}
		if mac, a, ok := solicitation(p); ok {
			back := advertisement(serverMAC, mac, a)
			if _, err := ipv6.ParseHeader(back[etherLen:]); err != nil {
				t.Fatal(err)
			}
		}
		foreignServer(p, func(netip.Addr) bool { return false })
		sender(p)
	})
}

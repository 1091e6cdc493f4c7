package dhcp_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rhizome/serve/boot"
	"rhizome/serve/dhcp"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// ask builds a request of suigintou's.
func ask(t testing.TB, mods ...dhcpv4.Modifier) *dhcp.Request {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1})}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	r, err := dhcp.Parse(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func raw(code uint8, data ...byte) dhcpv4.Modifier {
	return dhcpv4.WithGeneric(dhcpv4.GenericOptionCode(code), data)
}

func text(code uint8, s string) dhcpv4.Modifier { return raw(code, []byte(s)...) }

func kinds(d dhcp.Decision) (all []boot.Kind) {
	for _, e := range d.Events {
		all = append(all, e.Kind)
	}
	return all
}

func codes(r *dhcp.Reply) (all []uint8) {
	for _, o := range r.Options {
		all = append(all, o.Code)
	}
	return all
}

func option(r *dhcp.Reply, code uint8) []byte {
	for _, o := range r.Options {
		if o.Code == code {
			return o.Data
		}
	}
	return nil
}

func decide(r *dhcp.Request) dhcp.Decision {
	return dhcp.Decide(r, dhcp.Arrival{Port: 67}, linuxNode(), true, dhcp.Config{})
}

// The states are those of RFC 2131, section 4.3.2.
func TestARequestIsAnsweredByTheStateItsClientIsIn(t *testing.T) {
	request, mine, other := dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), net.IP{10, 77, 0, 51}, net.IP{10, 77, 0, 52}
	asks := func(ip net.IP) dhcpv4.Modifier { return raw(50, ip...) }
	from := func(ip net.IP) dhcpv4.Modifier { return raw(54, ip...) }
	for name, c := range map[string]struct {
		mods []dhcpv4.Modifier
		want dhcpv4.MessageType // 0 is silence
		to   string
		says string
	}{
		"selecting us":              {mods: []dhcpv4.Modifier{request, from(net.IP{10, 77, 0, 1}), asks(mine)}, want: dhcpv4.MessageTypeAck, to: "10.77.0.51:68"},
		"selecting us, wrongly":     {mods: []dhcpv4.Modifier{request, from(net.IP{10, 77, 0, 1}), asks(other)}, want: dhcpv4.MessageTypeNak, to: "255.255.255.255:68", says: "10.77.0.52 is not the node's"},
		"selecting another server":  {mods: []dhcpv4.Modifier{request, from(net.IP{10, 77, 0, 9}), asks(other)}, says: "another DHCP server, 10.77.0.9"},
		"rebooting":                 {mods: []dhcpv4.Modifier{request, asks(mine)}, want: dhcpv4.MessageTypeAck, to: "10.77.0.51:68"},
		"rebooting on another net":  {mods: []dhcpv4.Modifier{request, asks(net.IP{192, 168, 1, 5})}, want: dhcpv4.MessageTypeNak, to: "255.255.255.255:68", says: "192.168.1.5 is not"},
		"renewing":                  {mods: []dhcpv4.Modifier{request, dhcpv4.WithClientIP(mine)}, want: dhcpv4.MessageTypeAck, to: "10.77.0.51:68"},
		"renewing what is not ours": {mods: []dhcpv4.Modifier{request, dhcpv4.WithClientIP(other)}, want: dhcpv4.MessageTypeNak, to: "255.255.255.255:68", says: "10.77.0.52 is not"},
		"naming nothing":            {mods: []dhcpv4.Modifier{request}, says: "names no address"},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(ask(t, c.mods...))
			if !strings.Contains(d.Reason, c.says) {
				t.Errorf("the reason is %q", d.Reason)
			}
			if c.want == 0 {
				if d.Reply != nil {
					t.Fatalf("it answered %s", d.Reply.Type)
				}
				return
			}
			if d.Reply == nil || d.Reply.Type != c.want || d.Reply.To.Addr.String() != c.to {
				t.Fatalf("it answered %+v", d.Reply)
			}
		})
	}
}

// RFC 2131, section 4.1, and FreeBSD's loader.
func TestAReplyGoesWhereItsClientCanTakeIt(t *testing.T) {
	discover, broadcast := dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithBroadcast(true)
	relay := dhcpv4.WithGatewayIP(net.IP{10, 78, 0, 1})
	bad := []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), raw(50, 10, 0, 0, 9)}
	loader := []dhcpv4.Modifier{text(60, "PXEClient"), text(77, "\x07FreeBSD")}
	const own, all = "52:54:00:77:00:01", "ff:ff:ff:ff:ff:ff"
	for name, c := range map[string]struct {
		mods     []dhcpv4.Modifier
		addr, in string // in is the frame's MAC; empty for none
	}{
		"to a machine without an address":      {[]dhcpv4.Modifier{discover}, "10.77.0.51:68", own},
		"to all, as it asks":                   {[]dhcpv4.Modifier{discover, broadcast}, "255.255.255.255:68", all},
		"by a relay":                           {[]dhcpv4.Modifier{discover, broadcast, relay}, "10.78.0.1:67", ""},
		"a refusal to all":                     {bad, "255.255.255.255:68", all},
		"a refusal by a relay":                 {append(bad, relay), "10.78.0.1:67", ""},
		"to FreeBSD's loader never to all":     {append(loader, discover, broadcast), "10.77.0.51:68", own},
		"a refusal to FreeBSD's loader alone":  {append(loader, bad...), "255.255.255.255:68", own},
		"not to an address that is not theirs": {[]dhcpv4.Modifier{discover, dhcpv4.WithClientIP(net.IP{10, 77, 0, 99})}, "10.77.0.51:68", own},
		"BOOTP with a forged address":          {[]dhcpv4.Modifier{dhcpv4.WithClientIP(net.IP{8, 8, 8, 8})}, "10.77.0.51:68", own},
	} {
		t.Run(name, func(t *testing.T) {
			d := decide(ask(t, c.mods...))
			if d.Reply == nil {
				t.Fatalf("silence: %s", d.Reason)
			}
			if to := d.Reply.To; to.Addr.String() != c.addr || to.MAC.String() != c.in {
				t.Errorf("it goes to %s in a frame to %q", to.Addr, to.MAC)
			}
		})
	}
}

func TestARefusalByARelayHasTheBroadcastFlag(t *testing.T) {
	d := decide(ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), raw(50, 10, 0, 0, 9), dhcpv4.WithGatewayIP(net.IP{10, 78, 0, 1})))
	if d.Reply == nil || d.Reply.Flags&0x8000 == 0 {
		t.Errorf("the answer is %+v", d.Reply)
	}
}

func TestARelaysOptionsComeBackLastAndItsOwnServerIdentifierIsUsed(t *testing.T) {
	info := []byte{1, 4, 'r', 'a', 'c', 'k', 11, 4, 10, 78, 0, 1} // circuit id; RFC 5107
	mods := []dhcpv4.Modifier{raw(82, info...), raw(61, 1, 2, 3), dhcpv4.WithGatewayIP(net.IP{10, 78, 0, 1})}
	d := decide(ask(t, append(mods, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))...))
	all := codes(d.Reply)
	if all[len(all)-1] != 82 || !slices.Equal(option(d.Reply, 82), info) || !slices.Equal(option(d.Reply, 61), []byte{1, 2, 3}) {
		t.Errorf("the options are %v", all)
	}
	if id := option(d.Reply, 54); !slices.Equal(id, []byte{10, 78, 0, 1}) {
		t.Errorf("the server identifier is %v", id)
	}
	// The client then selects the relay's address, and that is us.
	d = decide(ask(t, append(mods, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), raw(54, 10, 78, 0, 1), raw(50, 10, 77, 0, 51))...))
	if d.Reply == nil || d.Reply.Type != dhcpv4.MessageTypeAck {
		t.Errorf("the answer is %+v, %s", d.Reply, d.Reason)
	}
}

func TestAnUnknownMACGetsSilence(t *testing.T) {
	d := dhcp.Decide(ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)), dhcp.Arrival{}, dhcp.Machine{}, false, dhcp.Config{})
	if d.Reply != nil || !slices.Equal(kinds(d), []boot.Kind{boot.DHCPUnknown}) {
		t.Errorf("the decision is %+v", d)
	}
}

func TestAnotherServerOfOursLooksAroundUnremarked(t *testing.T) {
	d := dhcp.Decide(ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), text(60, "rhizome-probe")), dhcp.Arrival{}, dhcp.Machine{}, false, dhcp.Config{})
	if d.Reply != nil || len(d.Events) != 0 {
		t.Errorf("the decision is %+v", d)
	}
}

func TestTwoServersWithOneImageAnswerAlike(t *testing.T) {
	for _, p := range fixturePackets(t) {
		var answers [][]byte
		for range 2 {
			r, err := dhcp.Parse(p)
			if err != nil {
				t.Fatal(err)
			}
			if d := decide(r); d.Reply != nil {
				answers = append(answers, d.Reply.Append(nil))
			}
		}
		if len(answers) == 2 && !slices.Equal(answers[0], answers[1]) {
			t.Errorf("the answers differ:\n%x\n%x", answers[0], answers[1])
		}
	}
}

func TestInformGivesNoAddressAndNoLeaseAndStaysInTheSubnet(t *testing.T) {
	inform := dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)
	d := decide(ask(t, inform, dhcpv4.WithClientIP(net.IP{10, 77, 0, 200})))
	if d.Reply == nil || !d.Reply.Your.IsUnspecified() || option(d.Reply, 51) != nil || d.Reply.To.Addr.String() != "10.77.0.200:68" {
		t.Errorf("the answer is %+v", d.Reply)
	}
	if d := decide(ask(t, inform, dhcpv4.WithClientIP(net.IP{8, 8, 8, 8}))); d.Reply != nil {
		t.Errorf("a forged address gets an answer: %+v", d.Reply)
	}
}

func TestDeclineIsAConflictUnlessItIsOfAnotherServersAddress(t *testing.T) {
	decline := dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline)
	if d := decide(ask(t, decline, raw(54, 10, 77, 0, 1))); d.Reply != nil || !slices.Equal(kinds(d), []boot.Kind{boot.DHCPDecline, boot.DHCPConflict}) {
		t.Errorf("the decision is %+v", d)
	}
	if d := decide(ask(t, decline, raw(54, 10, 77, 0, 9))); !slices.Equal(kinds(d), []boot.Kind{boot.DHCPDecline}) {
		t.Errorf("the decision is %+v", d)
	}
}

func TestARequestOfBeforeDHCPIsAnsweredAsThen(t *testing.T) {
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{0x52, 0x54, 0, 0x77, 0, 1}))
	if err != nil {
		t.Fatal(err)
	}
	whole := m.ToBytes()
	noCookie := append(slices.Clone(whole[:236]), make([]byte, 64)...)
	noEnd := append(slices.Clone(whole[:240]), 12, 1, 'x')
	for name, p := range map[string][]byte{"whole": whole[:300], "no cookie": noCookie, "no vendor area": whole[:236], "no END": noEnd} {
		r, err := dhcp.Parse(p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := decide(r)
		if d.Reply == nil || option(d.Reply, 53) != nil || option(d.Reply, 51) != nil || option(d.Reply, 54) != nil {
			t.Errorf("%s: the answer is %+v", name, d.Reply)
			continue
		}
		if n := len(d.Reply.Append(nil)); n < 300 {
			t.Errorf("%s: the answer has %d bytes", name, n)
		}
	}
}

func TestOptionsInTheFileAndServerNameFieldsAreRead(t *testing.T) {
	m := ask(t, raw(52, 3))
	p := m.ToBytes()
	copy(p[108:], []byte{53, 1, 1, 255})                                           // file: DISCOVER
	copy(p[44:], append([]byte{60, 14}, append([]byte("Linux ipconfig"), 255)...)) // sname
	r, err := dhcp.Parse(p)
	if err != nil {
		t.Fatal(err)
	}
	if r.Bootp || r.Client.Name != "Linux ipconfig" {
		t.Errorf("it is %+v", r.Client)
	}
}

func TestWhatIsNoRequestIsRefusedInASentence(t *testing.T) {
	good := readHex(t, "testdata/packets/udhcpc-discover.hex")
	for name, c := range map[string]struct {
		change func(p []byte) []byte
		want   string
	}{
		"short":         {func(p []byte) []byte { return p[:200] }, "200 bytes"},
		"huge":          {func(p []byte) []byte { return make([]byte, 4000) }, "4000 bytes"},
		"a reply":       {func(p []byte) []byte { p[0] = 2; return p }, "no request"},
		"token ring":    {func(p []byte) []byte { p[1] = 6; return p }, "not Ethernet"},
		"long address":  {func(p []byte) []byte { p[2] = 200; return p }, "not Ethernet"},
		"in circles":    {func(p []byte) []byte { p[3] = 17; return p }, "17 relays"},
		"cut in option": {func(p []byte) []byte { return append(p[:240], 60, 200, 'x') }, "options"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dhcp.Parse(c.change(slices.Clone(good)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestLargeAnswersAreCutToWhatTheClientTakes(t *testing.T) {
	m := freebsdNode()
	m.Node.Boot.Kenv = nil
	for i := range 5 {
		m.Node.Boot.Kenv = append(m.Node.Boot.Kenv, "v"+string(rune('0'+i))+"="+strings.Repeat("x", 80))
	}
	loader := []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), text(60, "PXEClient"), text(77, "\x07FreeBSD")}
	d := dhcp.Decide(ask(t, loader...), dhcp.Arrival{}, m, true, dhcp.Config{})
	if n := len(d.Reply.Append(nil)); n > 548 {
		t.Errorf("a client that names no size gets %d bytes", n)
	}
	if !slices.Equal(d.Reply.Dropped, []uint8{254, 253, 252}) || !strings.Contains(d.Reason, "no room for the options [254 253 252]") {
		t.Errorf("dropped %v; %s", d.Reply.Dropped, d.Reason)
	}
	if option(d.Reply, 17) == nil || option(d.Reply, 250) == nil {
		t.Error("what the loader needs most is gone")
	}
	d = dhcp.Decide(ask(t, append(loader, raw(57, 1500>>8, 1500&255))...), dhcp.Arrival{}, m, true, dhcp.Config{})
	if len(d.Reply.Dropped) != 0 {
		t.Errorf("dropped %v of what a large frame holds", d.Reply.Dropped)
	}
}

func TestKenvBeyondFiveGoesIntoLists(t *testing.T) {
	m := freebsdNode()
	m.Node.Boot.Kenv = []string{"a=1", "b=x;y", "c=3", "d=4", "e=5", "f=6", "g={address} of {name} at {server}", "long=" + strings.Repeat("x", 300)}
	r := ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), text(60, "PXEClient"), text(77, "\x07FreeBSD"))
	d := dhcp.Decide(r, dhcp.Arrival{}, m, true, dhcp.Config{})
	want := map[uint8]string{250: "b=x;y", 251: "a=1", 252: "c=3", 253: "d=4", 254: "e=5", 246: "f=6;g=10.77.0.51 of suigintou at 10.77.0.1"}
	for code, v := range want {
		if got := string(option(d.Reply, code)); got != v {
			t.Errorf("option %d is %q, not %q", code, got, v)
		}
	}
}

func TestAGatewayOutsideTheSubnetIsReachedByARouteOfItsOwn(t *testing.T) {
	m := linuxNode()
	m.Cluster.Network.Gateway = mustAddr("10.99.0.1")
	r := ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), raw(55, 121))
	d := dhcp.Decide(r, dhcp.Arrival{}, m, true, dhcp.Config{})
	want := []byte{32, 10, 99, 0, 1, 0, 0, 0, 0, 0, 10, 99, 0, 1}
	if got := option(d.Reply, 121); !slices.Equal(got, want) {
		t.Errorf("option 121 is %v", got)
	}
}

func TestALongBootFileNameIsInOption67Alone(t *testing.T) {
	m := linuxNode()
	m.Node.Boot.BIOS = "/" + strings.Repeat("d", 130) + "/pxelinux.0"
	r := ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), text(60, "PXEClient:Arch:00000:UNDI:002001"))
	d := dhcp.Decide(r, dhcp.Arrival{}, m, true, dhcp.Config{})
	back, err := dhcpv4.FromBytes(d.Reply.Append(nil))
	if err != nil || back.BootFileName != "" || back.BootFileNameOption() != m.Node.Boot.BIOS {
		t.Errorf("%v: the file field is %q, option 67 %q", err, back.BootFileName, back.BootFileNameOption())
	}
}

func TestIPXEIsNotSentToFetchItself(t *testing.T) {
	m := linuxNode()
	m.Node.Boot.Kernel = ""
	r := ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), text(77, "iPXE"), text(60, "PXEClient:Arch:00000:UNDI:002001"))
	d := dhcp.Decide(r, dhcp.Arrival{}, m, true, dhcp.Config{})
	if d.Reply.File != "" || !strings.Contains(d.Reason, "names no kernel") {
		t.Errorf("it fetches %q: %s", d.Reply.File, d.Reason)
	}
}

func TestAnImageWithoutAddressesIsAnsweredByNobody(t *testing.T) {
	m := linuxNode()
	m.Node.Address = netip.Addr{}
	d := dhcp.Decide(ask(t, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover)), dhcp.Arrival{}, m, true, dhcp.Config{})
	if d.Reply != nil || !strings.Contains(d.Reason, "no IPv4 address") {
		t.Errorf("the decision is %+v", d)
	}
}

// Whatever comes in: no panic, no answer to strangers, nothing larger than the
// client takes, and only what an independent decoder reads.
func FuzzDecide(f *testing.F) {
	for _, p := range fixturePackets(f) {
		f.Add(p, true, uint16(67))
	}
	f.Add(readHex(f, "testdata/packets/uefi-pxe-request-4011.hex"), false, uint16(4011))
	f.Fuzz(func(t *testing.T, p []byte, server bool, port uint16) {
		r, err := dhcp.Parse(p)
		if err != nil {
			return
		}
		c := dhcp.Config{Mode: dhcp.ModeProxy}
		if server {
			c.Mode = dhcp.ModeServer
		}
		at := dhcp.Arrival{From: netip.MustParseAddrPort("10.77.0.51:4011"), Port: port}
		if d := dhcp.Decide(r, at, dhcp.Machine{}, false, c); d.Reply != nil {
			t.Fatal("a stranger gets an answer")
		}
		d := dhcp.Decide(r, at, freebsdNode(), true, c)
		if d.Reply == nil {
			return
		}
		lawful(t, r, d.Reply)
	})
}

func lawful(t *testing.T, r *dhcp.Request, reply *dhcp.Reply) {
	t.Helper()
	out := reply.Append(nil)
	if len(out) > reply.Limit || len(out) < 300 {
		t.Fatalf("%d bytes for a client that takes %d", len(out), reply.Limit)
	}
	back, err := dhcpv4.FromBytes(out)
	if err != nil || back.TransactionID != r.TransactionID || back.MessageType() != reply.Type {
		t.Fatalf("our reply reads as %v: %v", back, err)
	}
}

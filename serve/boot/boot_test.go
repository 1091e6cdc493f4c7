package boot

import (
	"bufio"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)

// recorded reads what serve kept of real boots.
func recorded(t *testing.T, name string) []Event {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []Event
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// at makes events a second apart.
func at(from time.Duration, events ...Event) []Event {
	for i := range events {
		events[i].Time = start.Add(from + time.Duration(i)*time.Second)
	}
	return events
}

func dhcp(k Kind, client, file string) Event {
	e := Event{Kind: k, Node: "n1", MAC: "52:54:00:77:00:01", Client: client, File: file, Digest: "sha256:aa"}
	if k == DHCPOffer || k == DHCPAck {
		e.Addr = netip.MustParseAddr("10.77.0.11")
	}
	return e
}

func of(k Kind, file, problem string) Event {
	e := Event{Kind: k, Node: "n1", File: file, Error: problem}
	if k == TFTPDone || k == HTTPDone {
		e.Bytes = 1000
	}
	return e
}

// toKernel is a UEFI boot up to the kernel.
func toKernel() []Event {
	return []Event{
		dhcp(DHCPDiscover, "UEFI x64 PXE", ""), dhcp(DHCPOffer, "UEFI x64 PXE", "snponly.efi"), dhcp(DHCPAck, "UEFI x64 PXE", "snponly.efi"),
		of(TFTPRead, "snponly.efi", ""), of(TFTPDone, "snponly.efi", ""),
		dhcp(DHCPDiscover, "iPXE (UEFI x64)", ""), dhcp(DHCPAck, "iPXE (UEFI x64)", "http://10.77.0.1/boot.ipxe"),
		of(HTTPDone, "/boot.ipxe", ""), of(HTTPDone, "/files/boot/vmlinuz", ""), of(HTTPDone, "/files/boot/initrd.img", ""),
	}
}

func then(events []Event, more ...Event) []Event { return slices.Concat(events, more) }

func TestTheFirstThingThatDidNotHappenIsNamed(t *testing.T) {
	system := []Event{dhcp(DHCPDiscover, "Linux ipconfig", ""), dhcp(DHCPAck, "Linux ipconfig", "")}
	mounted := then(then(toKernel(), system...), of(MountDone, "/nodes/n1", ""))
	for name, c := range map[string]struct {
		events []Event
		after  time.Duration
		state  State
		// missing, why and do are parts of what must be said.
		missing, why, do string
	}{
		"nothing was seen":  {nil, 0, StateUnseen, "a request from the machine", "nothing was seen", "card that the recipe names"},
		"it has just asked": {[]Event{dhcp(DHCPDiscover, "UEFI x64 PXE", "")}, time.Second, StateBooting, "an address", "takes no answer", "VLAN"},
		"it asks for ever":  {[]Event{dhcp(DHCPDiscover, "UEFI x64 PXE", ""), dhcp(DHCPOffer, "UEFI x64 PXE", "")}, time.Hour, StateStuck, "an address", "takes no answer", "spanning tree"},
		"a card of no node": {[]Event{{Kind: DHCPUnknown, MAC: "52:54:00:00:00:99", Client: "iPXE (BIOS)"}}, 0, StateStuck, "an address", "belongs to no node", "add the card"},
		"another DHCP server": {[]Event{dhcp(DHCPDiscover, "UEFI x64 PXE", ""), {Kind: DHCPForeign, Node: "n1", Error: "the node took the offer of 10.77.0.9"}},
			time.Hour, StateStuck, "an address", "10.77.0.9", "--dhcp proxy"},
		"its address is taken": {[]Event{dhcp(DHCPDiscover, "udhcpc", ""), {Kind: DHCPConflict, Node: "n1", Error: "10.77.0.11 is 52:54:00:00:00:99's"}},
			time.Second, StateStuck, "an address", "52:54:00:00:00:99", "another address"},
		"no program for its firmware": {[]Event{dhcp(DHCPDiscover, "UEFI arm64 PXE", ""), dhcp(DHCPAck, "UEFI arm64 PXE", "")}, time.Hour, StateStuck,
			"a boot program", "no program for its firmware (UEFI arm64 PXE)", "recipe"},
		"it fetches nothing": {toKernel()[:3], time.Hour, StateStuck, "a boot program", "told to fetch snponly.efi", "firewall"},
		"the boot program is not there": {then(toKernel()[:3], of(TFTPNotFound, "pxelinux.0", `there is no "pxelinux.0"; the nearest name is "/boot/pxelinux.0"`)), time.Second,
			StateStuck, "a boot program", "the nearest name", "boot spec"},
		"the boot program is refused by the firmware": {toKernel()[:5], time.Hour, StateStuck, "a kernel", "snponly.efi was sent", "Secure Boot"},
		"pxelinux looks for its configuration": {then(toKernel()[:5], of(TFTPNotFound, "pxelinux.cfg/01-52", "none"), of(TFTPDone, "pxelinux.cfg/default", "")), time.Second,
			StateBooting, "a kernel", "was sent", ""},
		"the kernel is not there": {then(toKernel()[:8], of(HTTPNotFound, "/files/boot/vmlinuz", "the image has no /boot/vmlinuz")), time.Second,
			StateStuck, "a kernel", "the image has no /boot/vmlinuz", "boot spec"},
		"the kernel is silent":            {toKernel(), time.Hour, StateStuck, "a word of the kernel", "nothing was heard since", "network card's driver"},
		"no mount is asked for":           {then(toKernel(), system...), time.Hour, StateStuck, "the mount of the root", "asks for no mount", "nfsroot="},
		"the mount is refused":            {then(then(toKernel(), system...), of(MountRefused, "/nodes/n2", "10.77.0.11 may not mount it")), time.Second, StateStuck, "the mount", "/nodes/n2: 10.77.0.11 may not", "/nodes/NAME"},
		"the root is mounted, not read":   {mounted, time.Hour, StateStuck, "the first read", "no call followed", "TCP port 2049"},
		"init is never looked for":        {then(mounted, of(NFSFirstCall, "", "")), time.Hour, StateStuck, "the look for init", "no init", "init="},
		"a layer is damaged":              {then(mounted, of(NFSFirstCall, "", ""), of(LayerDamaged, "usr/lib/libc.so", "its frame has another digest")), time.Second, StateStuck, "the look for init", "another digest", "pull the image again"},
		"init runs":                       {then(mounted, of(NFSFirstCall, "", ""), of(NFSInit, "", "")), time.Hour, StateUp, "", "", ""},
		"its early program stopped":       {then(mounted, of(NFSInit, "", ""), of(NodeBoot, "", ""), of(NodeStep, "bundle", "")), time.Hour, StateStuck, "the node's word", "early: bundle", "console"},
		"its early program is done":       {then(mounted, of(NFSInit, "", ""), of(NodeBoot, "", ""), of(NodeUp, "", "")), time.Hour, StateUp, "", "", ""},
		"it has fallen silent":            {then(mounted, of(NodeUp, "", ""), of(NodeSilent, "", "")), time.Hour, StateSilent, "its heartbeat", "fallen silent", "power"},
		"it is back":                      {then(mounted, of(NodeUp, "", ""), of(NodeSilent, "", ""), of(NodeBack, "", "")), time.Hour, StateUp, "", "", ""},
		"it ran before serve was started": {[]Event{of(NFSFirstCall, "", "")}, time.Hour, StateUp, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := Boot{}
			if boots := Boots(at(0, c.events...)); len(boots) > 0 {
				b = boots[len(boots)-1]
			}
			d := Diagnose(b, start.Add(time.Duration(len(c.events))*time.Second+c.after))
			if d.State != c.state || !strings.Contains(d.Missing, c.missing) || !strings.Contains(d.Why, c.why) || !strings.Contains(d.Do, c.do) {
				t.Errorf("at %s: %+v", d.Stage, d)
			}
			if c.missing == "" && d.Missing+d.Why+d.Do != "" {
				t.Errorf("nothing is amiss, yet: %+v", d)
			}
		})
	}
}

func TestEventsAreCutIntoBoots(t *testing.T) {
	again := func(client string) []Event { return []Event{dhcp(DHCPDiscover, client, "")} }
	up := append(toKernel(), of(MountDone, "/nodes/n1", ""), of(NFSInit, "", ""))
	for name, c := range map[string]struct {
		first, second []Event
		apart         time.Duration
		boots         int
	}{
		"firmware again, after the mount":          {up, again("UEFI x64 PXE"), time.Minute, 2},
		"firmware that repeats itself":             {again("UEFI x64 PXE"), again("UEFI x64 PXE"), 4 * time.Second, 1},
		"firmware again, after a boot that failed": {toKernel(), again("UEFI x64 PXE"), 2 * time.Minute, 2},
		"iPXE that firmware fetched":               {toKernel()[:5], again("iPXE (UEFI x64)"), time.Second, 1},
		"iPXE as the ROM, after the mount":         {up, again("iPXE (BIOS)"), time.Minute, 2},
		"the initramfs of this boot, late":         {toKernel(), again("Linux ipconfig"), time.Hour, 1},
		"FreeBSD's loader, once more":              {[]Event{dhcp(DHCPDiscover, "FreeBSD loader", ""), of(MountDone, "/nodes/n1", "")}, again("FreeBSD loader"), time.Second, 1},
		"FreeBSD's loader, a day later":            {[]Event{dhcp(DHCPDiscover, "FreeBSD loader", ""), of(MountDone, "/nodes/n1", "")}, again("FreeBSD loader"), 24 * time.Hour, 2},
		"dhclient of a node that runs":             {up, again("dhclient"), time.Hour, 1},
	} {
		events := append(at(0, c.first...), at(time.Duration(len(c.first))*time.Second+c.apart, c.second...)...)
		if got := Boots(events); len(got) != c.boots {
			t.Errorf("%s: %d boots, want %d", name, len(got), c.boots)
		}
	}
}

// A real boot of Debian by iPXE, as serve kept it.
func TestARecordedBootIsToldInOrder(t *testing.T) {
	events := recorded(t, "bios-ipxe.jsonl")
	boots := Boots(events)
	b := boots[len(boots)-1]
	if d := Diagnose(b, b.Last()); d.State != StateUp || d.Stage != Init {
		t.Errorf("%+v", d)
	}
	if b.Node != "n1" || b.MAC != "52:54:00:77:00:01" || b.Addr.String() != "10.77.0.11" || !strings.HasPrefix(b.Digest, "sha256:08011f5b") {
		t.Errorf("it is told of %s %s %s %s", b.Node, b.MAC, b.Addr, b.Digest)
	}
	var told []string
	for _, l := range Timeline(b) {
		told = append(told, l.Text)
	}
	want := []string{
		"asks who gives addresses (iPXE (BIOS))", "gets 10.77.0.11, to boot http://10.77.0.1/boot.ipxe", "fetched /boot.ipxe over HTTP",
		"fetched /files/boot/vmlinuz", "fetched /files/boot/initrd.img", "asks who gives addresses (Linux ipconfig)", "gets 10.77.0.11",
		"mounted /nodes/n1", "reads its root", "starts init",
	}
	text := strings.Join(told, "\n")
	for _, w := range want {
		i := strings.Index(text, w)
		if i < 0 {
			t.Fatalf("%q is not told, or out of order, in:\n%s", w, strings.Join(told, "\n"))
		}
		text = text[i+len(w):]
	}
	if len(told) > len(want)+1 {
		t.Errorf("too much is told:\n%s", strings.Join(told, "\n"))
	}
}

// Every kind of trouble has its words.
func TestEveryTroubleCanBeTold(t *testing.T) {
	for k, do := range trouble {
		if sentences[k] == "" || do == "" {
			t.Errorf("%s: %q, %q", k, sentences[k], do)
		}
	}
}

package dhcp_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/serve/dhcp"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

var update = flag.Bool("update", os.Getenv("RHIZOME_UPDATE_GOLDEN") != "", "write the golden files anew")

// Each captured packet has a golden file beside it: what it asks, and what it
// is answered on a Debian node, on a FreeBSD node, and by a proxy. The answer
// is printed by the codec's decoder, which is not the encoder that wrote it.
func TestCapturedPacketsAreAnsweredAsTheirGoldensSay(t *testing.T) {
	for _, name := range fixtures(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".hex"), func(t *testing.T) {
			compare(t, strings.TrimSuffix(name, ".hex")+".golden", dumpDecisions(t, name))
		})
	}
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v (make it with: go test ./serve/dhcp -run Captured -update, and read it)", err)
	}
	wanted, lines := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range min(len(wanted), len(lines)) {
		if wanted[i] != lines[i] {
			t.Fatalf("%s, line %d:\nwant %s\n got %s", golden, i+1, wanted[i], lines[i])
		}
	}
	if len(wanted) != len(lines) {
		t.Fatalf("%s has %d lines, not %d", golden, len(wanted), len(lines))
	}
}

func dumpDecisions(t *testing.T, name string) string {
	t.Helper()
	r, err := dhcp.Parse(readHex(t, name))
	if err != nil {
		t.Fatal(err)
	}
	at := dhcp.Arrival{From: netip.MustParseAddrPort("0.0.0.0:68"), Port: 67}
	if strings.Contains(name, "4011") {
		at = dhcp.Arrival{From: netip.MustParseAddrPort("10.77.0.51:4011"), Port: 4011}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "=== request of %s\n%s", r.Client.Name, r.Summary())
	for _, c := range []struct {
		title  string
		m      dhcp.Machine
		config dhcp.Config
	}{
		{"a Debian node", linuxNode(), dhcp.Config{}},
		{"a FreeBSD node", freebsdNode(), dhcp.Config{}},
		{"a Debian node, by a proxy", linuxNode(), dhcp.Config{Mode: dhcp.ModeProxy, HTTPPort: 8080}},
	} {
		fmt.Fprintf(&b, "\n=== answer to %s\n", c.title)
		dumpDecision(t, &b, dhcp.Decide(r, at, c.m, true, c.config))
	}
	return b.String()
}

func dumpDecision(t *testing.T, b *strings.Builder, d dhcp.Decision) {
	t.Helper()
	for _, e := range d.Events {
		fmt.Fprintf(b, "event %s client=%q addr=%v file=%q error=%q detail=%q\n", e.Kind, e.Client, e.Addr, e.File, e.Error, e.Detail)
	}
	if d.Reply == nil {
		fmt.Fprintf(b, "silence: %s\n", d.Reason)
		return
	}
	to := "by the system's routing"
	if d.Reply.To.MAC != nil {
		to = "in a frame to " + d.Reply.To.MAC.String()
	}
	p := d.Reply.Append(nil)
	fmt.Fprintf(b, "sent to %s %s, %d bytes\noptions in order:", d.Reply.To.Addr, to, len(p))
	for _, o := range d.Reply.Options {
		fmt.Fprintf(b, " %d", o.Code)
	}
	for _, o := range d.Reply.Options {
		if o.Code >= 246 || o.Code == 130 {
			fmt.Fprintf(b, "\noption %d is %q", o.Code, o.Data)
		}
	}
	m, err := dhcpv4.FromBytes(p)
	if err != nil {
		t.Fatalf("the codec does not read our reply: %v", err)
	}
	fmt.Fprintf(b, "\n%s", strings.ReplaceAll(m.Summary(), "\x00", `\0`))
}

// A BIOS ROM that is no iPXE cannot be run by the emulators at hand: its
// packets are made from what such ROMs send, by the dry run's samples.
func TestADryRunSaysWhatEveryClientWouldBeAnswered(t *testing.T) {
	two := freebsdNode()
	two.Node.Name, two.Node.MACs, two.Node.Address = "kirakishou", []string{"52:54:00:77:00:02"}, mustAddr("10.77.0.52")
	broken := linuxNode()
	broken.Node.Name, broken.Node.MACs = "hina", []string{"52:54:00"}
	machines := []dhcp.Machine{linuxNode(), two, broken}
	var b strings.Builder
	for _, c := range []struct {
		title  string
		config dhcp.Config
	}{
		{"server", dhcp.Config{}},
		{"proxy, HTTP on port 8080", dhcp.Config{Mode: dhcp.ModeProxy, HTTPPort: 8080}},
	} {
		fmt.Fprintf(&b, "=== %s\n", c.title)
		if err := dhcp.WriteAnswers(&b, dhcp.Explain(machines, c.config)); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, "testdata/dry-run.golden", b.String())
}

package dhcp

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Answer is what one kind of client would be answered on one of a node's cards.
type Answer struct {
	Node   string     `json:"node"`
	MAC    string     `json:"mac"`
	Client string     `json:"client"`
	Addr   netip.Addr `json:"address,omitzero"`
	// File is what it would fetch: a path over TFTP, or a URL.
	File     string     `json:"file,omitempty"`
	Server   netip.Addr `json:"server,omitzero"`
	RootPath string     `json:"rootPath,omitempty"`
	// Options lists the options of the answer, in order.
	Options []int `json:"options,omitempty"`
	// Note says why there is no answer, or what is amiss with it.
	Note string `json:"note,omitempty"`
}

// sample is a client as it introduces itself.
type sample struct {
	arch  int // option 93; none if less than 0
	class string
	user  string
	bootp bool
	ipxe  bool
}

// samples are the clients that a dry run asks for.
func samples() []sample {
	return []sample{
		{arch: 0, class: "PXEClient:Arch:00000:UNDI:002001"},
		{arch: 7, class: "PXEClient:Arch:00007:UNDI:003016"},
		{arch: 11, class: "PXEClient:Arch:00011:UNDI:003000"},
		{arch: 16, class: "HTTPClient:Arch:00016:UNDI:003001"},
		{arch: 0, class: "PXEClient:Arch:00000:UNDI:002001", user: "iPXE", ipxe: true},
		{arch: 7, class: "PXEClient:Arch:00007:UNDI:003010", user: "iPXE", ipxe: true},
		{arch: -1, class: "PXEClient", user: "\x07FreeBSD"},
		{arch: -1, class: "FreeBSD:amd64:15.1-RELEASE"},
		{arch: -1, class: "Linux ipconfig"},
		{arch: -1, class: "udhcp 1.35.0"},
		{arch: -1},
		{arch: -1, bootp: true},
	}
}

// Explain says, for every card of every machine and every kind of client, what
// Decide would answer. It sends nothing.
func Explain(machines []Machine, c Config) []Answer {
	var out []Answer
	for _, m := range machines {
		for _, text := range m.Node.MACs {
			mac, err := net.ParseMAC(text)
			if err != nil {
				out = append(out, Answer{Node: m.Node.Name, MAC: text, Note: "this is no MAC address: it is never answered"})
				continue
			}
			for _, s := range samples() {
				out = append(out, explain(s, mac, m, c))
			}
		}
	}
	return out
}

func explain(s sample, mac net.HardwareAddr, m Machine, c Config) Answer {
	r := s.request(mac)
	d := Decide(r, Arrival{Port: serverPort}, m, true, c)
	a := Answer{Node: m.Node.Name, MAC: mac.String(), Client: r.Client.Name, Note: d.Reason}
	if d.Reply == nil {
		return a
	}
	if d.Reply.Your.IsValid() && !d.Reply.Your.IsUnspecified() {
		a.Addr = d.Reply.Your
	}
	a.File, a.Server = d.Reply.File, d.Reply.Next
	for _, o := range d.Reply.Options {
		a.Options = append(a.Options, int(o.Code))
		if o.Code == optRootPath {
			a.RootPath = string(o.Data)
		}
	}
	return a
}

func (s sample) request(mac net.HardwareAddr) *Request {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: mac, Options: dhcpv4.Options{},
	}
	if !s.bootp {
		m.Options[optType] = []byte{byte(dhcpv4.MessageTypeDiscover)}
	}
	if s.arch >= 0 {
		m.Options[dhcpv4.OptionClientSystemArchitectureType.Code()] = []byte{byte(s.arch >> 8), byte(s.arch)}
	}
	if s.class != "" {
		m.Options[optClass] = []byte(s.class)
	}
	if s.user != "" {
		m.Options[dhcpv4.OptionUserClassInformation.Code()] = []byte(s.user)
	}
	if s.ipxe {
		m.Options[optIPXE] = []byte{ipxeNoProxy, 1, 1}
	}
	return newRequest(m)
}

// WriteAnswers prints answers as a table for people.
func WriteAnswers(w io.Writer, answers []Answer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tMAC\tCLIENT\tADDRESS\tFETCHES\tROOT\tNOTE")
	for _, a := range answers {
		fmt.Fprintln(t, strings.Join([]string{a.Node, a.MAC, a.Client, address(a.Addr), dash(a.fetches()), dash(a.RootPath), a.Note}, "\t"))
	}
	return t.Flush()
}

func (a Answer) fetches() string {
	if a.File == "" || strings.Contains(a.File, "://") {
		return a.File
	}
	return "tftp://" + a.Server.String() + "/" + strings.TrimPrefix(a.File, "/")
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

package doctor

import (
	"fmt"
	"slices"
)

// Port is a port that serve could not have.
type Port struct {
	// Text is the sentence of whoever tried.
	Text string
	// Owner and PID are the process that has it, where that is known.
	Owner string
	PID   int
	// Taken and Denied tell why; other reasons are neither.
	Taken, Denied bool
	Number        uint16
	// Kernel says that the system's own NFS server runs, which is no process.
	Kernel bool
}

// Serving is a serve that runs on this store.
type Serving struct {
	PID     int
	Purpose string
}

// Ports judges what serve could not have. Ports of a serve that runs on this
// store are no finding if it is the one that is asked about; same says so.
func Ports(ports []Port, running []Serving, same func(Serving) bool) []Finding {
	f := findings{what: AboutNetwork}
	denied := false
	for _, p := range ports {
		at := slices.IndexFunc(running, func(s Serving) bool { return s.PID == p.PID })
		switch {
		case p.Denied:
			denied = true
		case p.Taken && p.PID > 0 && at >= 0 && same(running[at]):
		case p.Taken && p.PID > 0 && at >= 0:
			f.fail("stop it, or serve both as one cluster", "%s (it is %s)", p.Text, running[at].Purpose)
		case p.Taken:
			f.fail(p.remedy(), "%s", p.Text)
		default:
			f.fail("", "%s", p.Text)
		}
	}
	if denied {
		f.what = AboutHost
		f.fail("run as root, or with the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW", "this user may not listen on ports below 1024, or not send whole frames, and serve does both")
	}
	return f.all
}

// services are what has these ports on common systems, and how it is stopped.
var services = map[string]string{
	"dnsmasq":      "take its range and tftp-root off this interface (except-interface=), or serve with --dhcp proxy where it runs on another host",
	"in.tftpd":     "systemctl disable --now tftpd-hpa",
	"dhcpd":        "systemctl disable --now isc-dhcp-server",
	"kea-dhcp4":    "systemctl disable --now kea-dhcp4-server",
	"ganesha.nfsd": "systemctl disable --now nfs-ganesha",
	"unfsd":        "systemctl disable --now unfs3",
	"apache2":      "let it listen on other addresses than the server's (Listen ADDRESS:80)",
	"nginx":        "let it listen on other addresses than the server's (listen ADDRESS:80)",
	"systemd":      "systemctl list-sockets names the unit that holds it",
}

func (p Port) remedy() string {
	if p.Kernel && p.Owner == "" && p.Number == 2049 {
		return "the system's own NFS server runs: systemctl disable --now nfs-server"
	}
	if known := services[p.Owner]; known != "" {
		return known
	}
	if p.PID > 0 {
		return fmt.Sprintf("stop it, or bind it to another address: ps -fp %d", p.PID)
	}
	return "ss -lntup, as root, says who it is"
}

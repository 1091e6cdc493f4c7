package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// kinds are the servers beside each other. The tuned peer has what an
// experienced operator would set: no ping before an offer, iPXE spared its two
// waits (option 175.176 and an IPv6 router's word), attributes kept by server
// and node for good, as rhizome has its nodes mount. The untuned one has what
// the manuals' first examples have.
var kinds = []kind{
	{"rhizome", ours},
	{"dnsmasq + nfs-ganesha, tuned", func(b *bench, s *server, dir string) ([]string, string, error) {
		return peer(b, s, dir, b.node.Boot.Cmdline,
			[]string{"--no-ping", "--dhcp-authoritative", "--dhcp-option=encap:175,176,1b", "--enable-ra", "--dhcp-range=fd77::,ra-only"},
			"MDCACHE { Attr_Expiration_Time = 3600; Entries_HWMark = 500000; }\n")
	}},
	{"dnsmasq + nfs-ganesha, untuned", func(b *bench, s *server, dir string) ([]string, string, error) {
		return peer(b, s, dir, plainOptions(b.node.Boot.Cmdline), nil, "")
	}},
}

func ours(b *bench, s *server, _ string) ([]string, string, error) { return b.serve(s, b.image) }

// filledName is the server whose machine waits for its bundle.
const filledName = "rhizome, bundle there first"

// from is ours with another image.
func from(image string) func(*bench, *server, string) ([]string, string, error) {
	return func(b *bench, s *server, _ string) ([]string, string, error) { return b.serve(s, image) }
}

func (b *bench) serve(s *server, image string) ([]string, string, error) {
	program, err := filepath.Abs(b.binary)
	return []string{program, "--store", b.store, "serve", image, "--interface", s.net.Bridge}, `serve\.ready`, err
}

// plainOptions leaves of the root's mount options only those without which the
// initramfs does not mount it.
func plainOptions(cmdline string) string {
	words := strings.Fields(cmdline)
	for i, w := range words {
		if at, _, ok := strings.Cut(w, ","); ok && strings.HasPrefix(w, "nfsroot=") {
			words[i] = at + ",nolock"
		}
	}
	return strings.Join(words, " ")
}

// peer serves the same root out of a folder: iPXE's script, kernel and initrd
// over TFTP by dnsmasq, which gives the address too, the root by nfs-ganesha.
func peer(b *bench, s *server, dir, cmdline string, dnsmasq []string, ganesha string) ([]string, string, error) {
	server := b.network.Server.String()
	cmdline = strings.NewReplacer("{server}", server, "{name}", b.node.Name, "{digest}", "sha256:0", "{address}", b.node.Address.String()).Replace(cmdline)
	files := map[string]string{
		"tftp/boot.ipxe": "#!ipxe\nkernel kernel " + cmdline + " BOOTIF=01-" + strings.ReplaceAll(b.node.MACs[0], ":", "-") + "\ninitrd initrd\nboot\n",
		"ganesha.conf": fmt.Sprintf(`NFS_CORE_PARAM { Protocols = 3; mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; }
NFSV4 { Graceless = true; RecoveryRoot = "%[1]s/recovery"; }
%[2]sEXPORT { Export_Id = 1; Path = %[3]s; Pseudo = /nodes/%[4]s; Access_Type = RO; Squash = None; SecType = sys, none; Protocols = 3; FSAL { Name = VFS; } }
LOG { Default_Log_Level = CRIT; }
`, dir, ganesha, b.root, b.node.Name),
		"run.sh": peerScript(dir, append([]string{
			"--interface=" + s.net.Bridge, "--dhcp-range=" + b.network.Subnet.Masked().Addr().String() + ",static",
			"--dhcp-host=" + b.node.MACs[0] + "," + b.node.Address.String() + "," + b.node.Name,
			"--dhcp-boot=boot.ipxe", "--enable-tftp", "--tftp-root=" + dir + "/tftp", "--dhcp-leasefile=" + dir + "/leases",
		}, dnsmasq...)),
	}
	for _, d := range []string{"tftp", "recovery"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, "", err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return nil, "", err
		}
	}
	for from, to := range map[string]string{b.node.Boot.Kernel: "kernel", b.node.Boot.Initrd: "initrd"} {
		if err := os.Link(filepath.Join(b.root, from), filepath.Join(dir, "tftp", to)); err != nil {
			return nil, "", err
		}
		if err := os.Chmod(filepath.Join(dir, "tftp", to), 0o644); err != nil {
			return nil, "", err
		}
	}
	return []string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", dir + "/run.sh"}, "PEER-READY", nil
}

// peerScript runs the peer's three servers, with a /run of their own.
func peerScript(dir string, dnsmasq []string) string {
	return fmt.Sprintf(`set -e
mount -t tmpfs tmpfs /run
ip -6 addr add fd77::1/64 dev br0 nodad
rpcbind -f &
until rpcinfo -p 127.0.0.1 >/dev/null 2>&1; do sleep 0.1; done
ganesha.nfsd -F -f %[1]s/ganesha.conf -L %[1]s/ganesha.log -p /run/ganesha.pid &
dnsmasq --keep-in-foreground --port=0 --conf-file=/dev/null --user=root --pid-file --log-facility=%[1]s/dnsmasq.log %[2]s &
until rpcinfo -p 127.0.0.1 | grep -q mountd && [ -s %[1]s/dnsmasq.log ]; do sleep 0.1; done
echo PEER-READY
wait
`, dir, strings.Join(dnsmasq, " "))
}

// report prints the table of docs/benchmarks.md.
func report(w io.Writer, servers []*server) {
	fmt.Fprintln(w, "| server | boots | power-on to userland, median | slowest | server CPU a boot, ms | CPU, rhizome's to this |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, s := range servers {
		slices.Sort(s.took)
		n := len(s.took)
		fmt.Fprintf(w, "| %s | %d | %s | %s | %.0f | %.2f |\n", s.kind.name, n, seconds(s.took[n/2]), seconds(s.took[n-1]),
			float64(s.cpu.Microseconds())/1000/float64(n), float64(servers[0].cpu)/float64(s.cpu))
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

package nodeconfig

import (
	"fmt"
	"strings"

	"rhizome/recipes"
)

// linuxTmpfs is what systemd and the usual services write to on a root that is
// otherwise read-only; /run is systemd's own. It is not all of /var: the
// package database and the like stay visible.
func linuxTmpfs() []memory {
	return []memory{
		{on: "/tmp", mode: 0o1777},
		{on: "/var/tmp", mode: 0o1777},
		{on: "/var/cache", mode: 0o755},
		{on: "/var/lib/systemd", mode: 0o755},
		{on: "/var/log", mode: 0o755},
	}
}

func linux(w *writer, r *recipes.Recipe, n *recipes.Node) {
	w.text("etc/hostname", n.Name+"\n")
	w.text("etc/machine-id", MachineID(r.Name, n.Name)+"\n")
	w.text("etc/systemd/network/10-rhizome.network", networkd(n))
	w.text("etc/NetworkManager/conf.d/10-rhizome.conf", networkManager(n))
	fstab(w, linuxTmpfs(), n)
	persist(w, n)
}

// networkd keeps systemd-networkd, where it is enabled, from taking the address
// away that the initramfs gave: the root would be gone with it
// (systemd.network(5), KeepConfiguration). Unmanaged would do too, but then
// network-online.target waits for nothing until its time is over.
func networkd(n *recipes.Node) string {
	var b strings.Builder
	b.WriteString("# Made by rhizome: the root is mounted through this card.\n[Match]\n")
	fmt.Fprintf(&b, "MACAddress=%s\n", strings.Join(n.MACs, " "))
	b.WriteString("\n[Network]\nDHCP=no\nKeepConfiguration=yes\n")
	return b.String()
}

// networkManager does the same for NetworkManager (NetworkManager.conf(5),
// "unmanaged-devices").
func networkManager(n *recipes.Node) string {
	devices := make([]string, len(n.MACs))
	for i, m := range n.MACs {
		devices[i] = "mac:" + m
	}
	return "# Made by rhizome: the root is mounted through this card.\n[keyfile]\nunmanaged-devices=" + strings.Join(devices, ";") + "\n"
}

// nfsOptions are the root's mount options as klibc's nfsmount takes them (usr/
// kinit/nfsmount/main.c: it knows neither actimeo= nor proto=). The image never
// changes under a node, so close-to-open checks and short attribute times, most
// calls of a boot, buy nothing; locks and ACLs are not served.
const nfsOptions = "vers=3,tcp,nolock,nocto,noacl,acregmin=3600,acregmax=3600,acdirmin=3600,acdirmax=3600"

// Cmdline is a Linux node's kernel command line for its boot spec. serve puts
// in "{server}", "{name}" and "{digest}".
//
// The address comes by DHCP once more (ip=dhcp): which of several cards has
// booted, and what it is called, is not known when the image is built.
func Cmdline(r *recipes.Recipe, n *recipes.Node) string {
	words := []string{
		"root=/dev/nfs",
		"nfsroot={server}:/nodes/{name}," + nfsOptions,
		"ip=dhcp", "ro", "rhizome.digest={digest}",
	}
	if n.Early && !strings.Contains(" "+n.Cmdline, " init=") {
		words = append(words, "init=/usr/sbin/rhizome-early")
	}
	if !strings.Contains(" "+n.Cmdline, " console=") {
		words = append(words, "console=tty0", "console=ttyS0")
	}
	if n.Cmdline != "" {
		words = append(words, n.Cmdline)
	}
	return strings.Join(words, " ")
}

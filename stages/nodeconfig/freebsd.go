package nodeconfig

import (
	"fmt"
	"strings"

	"rhizome/recipes"
)

// freebsdTmpfs is laid by rc.d/mountcritlocal, before rc.d/var and rc.d/tmp
// look: rc.d/var finds /var writable and empty, and fills it by mtree(8).
func freebsdTmpfs() []memory {
	return []memory{
		{on: "/tmp", mode: 0o1777},
		{on: "/var", mode: 0o755},
	}
}

func freebsd(w *writer, r *recipes.Recipe, n *recipes.Node) {
	w.text("etc/rc.conf", rcConf(r, n))
	// rc.d/hostid takes the identity from here; rc.d/hostid_save writes these
	// two, which a read-only root refuses, unless they agree already.
	w.text("etc/hostid", hostUUID(r.Name, n.Name)+"\n")
	w.text("etc/machine-id", MachineID(r.Name, n.Name)+"\n")
	w.text("boot/loader.conf", loaderConf(n))
	fstab(w, freebsdTmpfs(), n)
	persist(w, n)
}

// rcConf is rc.conf(5): what a read-only root needs, with the recipe's
// variables over it.
func rcConf(r *recipes.Recipe, n *recipes.Node) string {
	name := n.Name
	if r.Network.Domain != "" {
		name += "." + r.Network.Domain
	}
	made := []recipes.KV{
		{Key: "hostname", Value: name},
		// rc.d/root would mount the root writable.
		{Key: "root_rw_mount", Value: "NO"},
		// rc.d/random would write to /entropy and /boot/entropy.
		{Key: "entropy_file", Value: "/var/db/entropy-file"},
		{Key: "entropy_boot_file", Value: "NO"},
		// rc.d/kldxref would write to /boot.
		{Key: "kldxref_enable", Value: "NO"},
	}
	if n.Early {
		// rc.d/cleanvar empties /var/run, where the early script has left this
		// boot's token and the bundle.
		made = append(made, recipes.KV{Key: "cleanvar_enable", Value: "NO"})
	}
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there.\n")
	for _, kv := range override(made, n.RCConf) {
		fmt.Fprintf(&b, "%s=%s\n", kv.Key, doubleQuoted(kv.Value))
	}
	return b.String()
}

// doubleQuoted makes a shell word whose value is taken as it is: rc.conf is
// read by sh(1).
func doubleQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`
}

// loaderConf is loader.conf(5), the node's own.
func loaderConf(n *recipes.Node) string {
	made := []recipes.KV{
		// There is no /boot/entropy to load; asking costs a round of calls.
		{Key: "entropy_cache_load", Value: "NO"},
	}
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there.\n")
	for _, kv := range override(made, n.LoaderConf) {
		fmt.Fprintf(&b, "%s=\"%s\"\n", kv.Key, kv.Value)
	}
	return b.String()
}

// override lays the author's values over the made ones, by name.
func override(made, given []recipes.KV) []recipes.KV {
	out := append([]recipes.KV{}, made...)
	for _, kv := range given {
		at := -1
		for i := range out {
			if out[i].Key == kv.Key {
				at = i
			}
		}
		if at < 0 {
			out = append(out, kv)
			continue
		}
		out[at].Value = kv.Value
	}
	return out
}

// Kenv is what serve sends to FreeBSD's loader as "name=value" (DHCP options
// 250 to 254), with the recipe's own over it. It must be there before the
// loader reads its first file, which is why it is not in loader.conf.
//
// The kernel's mount is the loader's handle over TCP: no lock manager, and no
// close-to-open checks, which an immutable root does not need.
func Kenv(n *recipes.Node) []string {
	made := []recipes.KV{
		{Key: "boot.nfsroot.options", Value: "nolockd,nocto,rsize=32768"},
		{Key: "nfs.read_size", Value: "8192"},
		{Key: "rhizome.digest", Value: "{digest}"},
	}
	if n.Early {
		// init(8) runs it before rc, with the root read-only and the network up.
		made = append(made, recipes.KV{Key: "init_script", Value: "/sbin/rhizome-early"})
	}
	var out []string
	for _, kv := range override(made, n.Kenv) {
		out = append(out, kv.Key+"="+kv.Value)
	}
	return out
}

package nodeconfig

import (
	"fmt"
	"strings"

	"rhizome/recipes"
)

// EarlyConf is where the early script finds what the recipe says of its node.
const EarlyConf = "etc/rhizome/early.conf"

// earlyTmpfs is what the early script lays before any service looks: all of
// /var, which it fills from the image.
func earlyTmpfs() []memory {
	return []memory{
		{on: "/tmp", mode: 0o1777},
		{on: "/var", mode: 0o755},
	}
}

// early makes the early script's configuration and what it mounts on: shell
// variables, one assignment a line.
func early(w *writer, n *recipes.Node) {
	memories := tmpfsOf(earlyTmpfs(), n)
	for _, m := range memories {
		w.mountPoint(m.on, m.mode)
	}
	if n.Shared != "" {
		w.userMount(n.Shared)
	}
	var b strings.Builder
	b.WriteString("# Made by rhizome from the recipe; change it there. Read by rhizome-early.\n")
	for _, kv := range []recipes.KV{
		{Key: "root", Value: n.Root}, {Key: "etc", Value: n.Etc}, {Key: "persist", Value: n.Persist},
		{Key: "shared", Value: n.Shared}, {Key: "tmpfs", Value: earlyMemory(memories)}, {Key: "secrets", Value: secretFiles(n)},
	} {
		fmt.Fprintf(&b, "%s=%s\n", kv.Key, singleQuoted(kv.Value))
	}
	w.text(EarlyConf, b.String())
}

// earlyMemory is a line for each memory file system: mode, size or "-" for the
// system's default, mount point. A recipe's mount points have no blanks.
func earlyMemory(list []memory) string {
	lines := make([]string, len(list))
	for i, m := range list {
		size := m.size
		if size == "" {
			size = "-"
		}
		lines[i] = fmt.Sprintf("%04o %s %s", m.mode, size, m.on)
	}
	return strings.Join(lines, "\n")
}

// secretFiles are shell patterns of what serve lays over the node's view and
// no layer holds: a root that is copied into memory must copy these too.
func secretFiles(n *recipes.Node) string {
	var all []string
	for _, s := range n.Secrets {
		if s.Kind == "ssh-host-keys" {
			all = append(all, pattern(s.Path)+"/ssh_host_*")
			continue
		}
		all = append(all, pattern(s.Path))
	}
	return strings.Join(all, " ")
}

// pattern is a path as a shell pattern without blanks and quotes.
func pattern(p string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/._-", r) || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '?'
	}, p)
}

// singleQuoted makes a shell word whose value is taken as it is.
func singleQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

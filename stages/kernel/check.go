package kernel

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

func matchGlob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// Node is a machine that boots a kernel, as far as the kernel's own needs go.
type Node struct {
	Name string
	// Modules are what its loader.conf loads beside the kernel: "if_igb".
	Modules []string
}

// nics are Ethernet drivers of FreeBSD that a machine can boot from; "em"
// also brings igb, and vtnet is virtio's.
var nics = []string{
	"ae", "age", "alc", "ale", "axge", "axp", "bce", "bfe", "bge", "bnxt", "bxe", "cas", "cc", "cxgbe", "cxl", "dc", "dwc", "ena", "em", "et", "fxp", "gem", "genet", "gve",
	"hn", "hyperv", "iavf", "ice", "igb", "igc", "ix", "ixl", "ixv", "jme", "le", "lem", "lge", "liquidio", "mge", "mlx4en", "mlx5en", "msk", "mxge", "my", "neta", "nfe", "nge",
	"oce", "qlnxe", "qlxgb", "qlxge", "re", "rl", "sfxge", "sge", "sis", "sk", "ste", "stge", "sume", "ti", "vge", "virtio_net", "vmx", "vr", "vtnet", "xe", "xl",
}

// Findings are what a check of a configuration says.
type Findings struct {
	// Missing are sentences about what keeps nodes from booting.
	Missing []string
	// Warnings are sentences about what may.
	Warnings []string
}

// Check compares a finished configuration with what diskless nodes need: the
// NFS client as a root, and a driver for the network. The loader hands its
// mount over in the kernel's environment (nfs_setup_diskless), so BOOTP is
// not needed; where a kernel has it, it must be whole. revision is the tree's
// ("15.1").
func Check(c Config, revision string, nodes []Node) Findings {
	var f Findings
	for _, need := range []string{"INET", "NFSCL", "NFS_ROOT"} {
		if _, ok := c.Options[need]; !ok {
			f.miss(names(nodes), "option %s", need)
		}
	}
	_, bootp := c.Options["BOOTP"]
	_, bootpRoot := c.Options["BOOTP_NFSROOT"]
	switch {
	case bootp && !bootpRoot:
		f.miss(names(nodes), "option %s (the configuration has BOOTP, which then mounts nothing)", "BOOTP_NFSROOT")
	case bootpRoot && !bootp:
		f.miss(names(nodes), "option %s (the configuration has BOOTP_NFSROOT, which needs it)", "BOOTP")
	case bootp && newer(revision, 15):
		f.Warnings = append(f.Warnings, fmt.Sprintf("the options BOOTP and BOOTP_NFSROOT make a FreeBSD %s kernel ask DHCP itself, and such a kernel was seen to loop on \"bootpc_call: sosend: 65\" and never boot; leave both out: the loader hands its NFS mount to the kernel", revision))
	}
	f.drivers(c, nodes)
	return f
}

func (f *Findings) miss(who, format string, args ...any) {
	f.Missing = append(f.Missing, fmt.Sprintf(format, args...)+", needed by "+who)
}

// drivers looks for a network driver, in the kernel or among the modules that
// a node's loader loads.
func (f *Findings) drivers(c Config, nodes []Node) {
	for _, n := range nics {
		if c.Devices[n] {
			return
		}
	}
	var without []Node
	for _, n := range nodes {
		if !slices.ContainsFunc(n.Modules, isNIC) {
			without = append(without, n)
		}
	}
	if len(without) > 0 || len(nodes) == 0 {
		f.miss(names(without), "a network driver (such as device em, or if_em_load=\"YES\" in loader.conf)")
	}
}

func isNIC(module string) bool {
	return slices.Contains(nics, strings.TrimPrefix(module, "if_"))
}

func newer(revision string, major int) bool {
	m, _, _ := strings.Cut(revision, ".")
	n, err := strconv.Atoi(m)
	return err == nil && n >= major
}

// names lists nodes for a sentence.
func names(nodes []Node) string {
	const most = 6
	var quoted []string
	for _, n := range nodes[:min(most, len(nodes))] {
		quoted = append(quoted, fmt.Sprintf("%q", n.Name))
	}
	switch {
	case len(nodes) == 0:
		return "every diskless node"
	case len(nodes) == 1:
		return "the node " + quoted[0]
	case len(nodes) > most:
		return fmt.Sprintf("the nodes %s and %d more", strings.Join(quoted, ", "), len(nodes)-most)
	}
	return "the nodes " + strings.Join(quoted, ", ")
}

// Unknown returns the options of a request that the tree's option files do
// not list: config(8) would refuse them, but only after the toolchain is made.
func Unknown(options []string, known map[string]bool) []string {
	var unknown []string
	for _, o := range options {
		name, _, _ := strings.Cut(o, "=")
		if !known[name] && !strings.HasPrefix(name, "DEV_") {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// ParseOptions reads sys/conf/options: an option's name at the beginning of a
// line.
func ParseOptions(text string, known map[string]bool) {
	for _, line := range strings.Split(text, "\n") {
		if w := strings.Fields(line); len(w) > 0 && !strings.HasPrefix(w[0], "#") {
			known[w[0]] = true
		}
	}
}

// Near finds known names that a misspelt one may have meant.
func Near(name string, known map[string]bool) []string {
	var near []string
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if len(near) < 3 && (distance(name, k) <= 2 || len(name) > 3 && strings.Contains(k, name)) {
			near = append(near, k)
		}
	}
	return near
}

// distance is the number of letters to change between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := before
			if a[i-1] != b[j-1] {
				cost++
			}
			before, row[j] = row[j], min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

package doctor

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"rhizome/cmd/rhizome/internal/units"
	"rhizome/recipes"
	"rhizome/registry/imagefmt"
	"rhizome/serve/bootspec"
	"rhizome/stages/distribution"
)

// Nodes judges the roots of an image's nodes. What one kernel says is read once
// for all nodes that share it.
type Nodes struct{ kernels map[string]kernelNote }

// Node is a node and its merged root.
type Node struct {
	imagefmt.Node
	Tree bootspec.Tree
}

// root answers questions about one node's tree, and keeps what went wrong.
type root struct {
	findings
	tree bootspec.Tree
}

// open is a file with something in it, or a finding that says why not.
func (r *root) open(p string) (bootspec.File, bool) {
	file, err := r.tree.Open(p)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.fail("`rhizome verify` reads every byte", "%s cannot be read: %v", p, err)
	}
	return file, err == nil && file.Size > 0
}

func (r *root) has(p string) bool {
	_, ok := r.open(p)
	return ok
}

// Check judges one node's root: that what its boot names is there, and what
// its system stops without.
func (all *Nodes) Check(n Node) []Finding {
	r := &root{findings{what: AboutImage, node: n.Name}, n.Tree}
	r.spec(n.Boot)
	if n.Boot.OS == "freebsd" {
		all.freebsd(r, n)
	} else {
		r.linux(n)
	}
	r.fstab()
	return r.all
}

const rebuild = "build the image again with the stage that brings it"

// spec looks for each file that the boot spec names.
func (r *root) spec(b imagefmt.Boot) {
	for _, p := range bootspec.Allowed(b) {
		if !r.has(p) {
			r.fail(rebuild, "the boot spec names %s, and the root does not hold it, or it is empty", p)
		}
	}
	switch {
	case b.Kernel == "" && b.BIOS == "" && b.UEFI == "" && b.UEFIArm64 == "":
		r.fail("add a kernel stage to the recipe and build again", "the boot spec names neither a kernel nor a boot program: there is nothing to boot")
	case b.OS != "freebsd" && b.BIOS == "" && b.UEFI == "" && b.UEFIArm64 == "":
		r.warn(`add "- media: {ipxe: true}" to the stages`, "the boot spec names no boot program: only machines that bring their own iPXE or boot by UEFI HTTP will boot")
	case b.OS == "freebsd" && b.BIOS == "" && b.UEFI == "" && b.UEFIArm64 == "":
		r.fail(rebuild, "the boot spec names no boot program: firmware gets neither pxeboot nor loader.efi")
	}
}

// linux looks for what the kernel starts.
func (r *root) linux(n Node) {
	first := setting(strings.Fields(n.Boot.Cmdline), "init=")
	if first != "" && !r.has(first) {
		r.fail(rebuild, "the kernel is told to start %s, and the root does not hold it: it would panic", first)
	}
	if !slices.ContainsFunc([]string{"/sbin/init", "/usr/lib/systemd/systemd", "/bin/init"}, r.has) {
		r.fail(`add an init to the recipe's packages, "systemd-sysv" for one`, "the root has no init: neither /sbin/init nor /usr/lib/systemd/systemd nor /bin/init")
	}
	r.early(n, first, "/usr/sbin/rhizome-node")
}

// setting is the value of the last word with a prefix.
func setting(words []string, prefix string) (value string) {
	for _, w := range words {
		if v, ok := strings.CutPrefix(w, prefix); ok {
			value = v
		}
	}
	return value
}

// early looks for the program that the early script talks to, and for the
// script where the node's keys mean nothing without it.
func (r *root) early(n Node, script, program string) {
	if path.Base(script) == "rhizome-early" {
		if !r.has(program) {
			r.fail(rebuild, "the early script is there and %s is not: no bundle, no root in memory, nothing told", program)
		}
		return
	}
	const remedy = `add "- early: {}" to the stages and build again`
	if n.Root == "precache" || n.Root == "ram" {
		r.fail(remedy, "the root mode %q needs the early script, which nothing starts", n.Root)
	}
	if n.Shared != "" {
		r.warn(remedy, "nothing mounts %s: the early script is not started", n.Shared)
	}
}

// freebsd looks for what loader, kernel and rc(8) stop without.
func (all *Nodes) freebsd(r *root, n Node) {
	if !r.has("/boot/lua/loader.lua") {
		r.fail("take LOADER_LUA out of \"without\" of the world stage, or add the release set base", "there is no /boot/lua/loader.lua: the loader stops at its prompt")
	}
	kernel := n.Boot.Kernel
	if kernel == "" {
		kernel = "/boot/kernel/kernel"
		if !r.has(kernel) {
			r.fail("add a kernel stage, or the release set kernel", "there is no kernel at %s", kernel)
		}
	}
	init := setting(n.Boot.Kenv, "init_path=")
	if init == "" {
		init = "/sbin/init"
	}
	if !r.has(init) {
		r.fail(rebuild, "there is no %s: the kernel has nothing to start", init)
	}
	script := setting(n.Boot.Kenv, "init_script=")
	if script != "" && !r.has(script) {
		r.fail(rebuild, "init is told to run %s first, and the root does not hold it", script)
	}
	r.early(n, script, "/sbin/rhizome-node")
	r.distribution()
	all.bootp(r, kernel)
}

// distribution is what the handbook's readers forgot.
func (r *root) distribution() {
	lacks := distribution.Missing(func(p string) bool { return r.has("/" + p) })
	const remedy = `add "- distribution: {}" to the stages, or the release set base, and build again`
	const forgotten = 5
	if len(lacks) >= forgotten {
		r.fail(remedy, "`make distribution` was left out: there is no /%s (%s), and %d more files are missing", lacks[0].Path, lacks[0].Why, len(lacks)-1)
		return
	}
	for _, l := range lacks {
		r.fail(remedy, "there is no /%s, which `make distribution` makes: %s", l.Path, l.Why)
	}
}

// Unusable is an image, or one node's part of it, that serve cannot boot.
func Unusable(node string, err error) []Finding {
	f := findings{what: AboutImage, node: node}
	f.fail("`rhizome verify REF --repair` fetches what is missing or damaged", "%v", err)
	return f.all
}

// kernelNote is what a kernel's own bytes say of it.
type kernelNote struct {
	major int
	bootp bool
}

// bootp refuses a kernel that asks DHCP itself, where that was seen to fail.
func (all *Nodes) bootp(r *root, kernel string) {
	file, ok := r.open(kernel)
	if !ok {
		return // told already
	}
	note, known := all.kernels[file.Digest]
	if !known {
		var err error
		if note, err = readKernel(io.NewSectionReader(file, 0, file.Size)); err != nil {
			r.fail("`rhizome verify` reads every byte", "the kernel %s cannot be read: %v", kernel, err)
			return
		}
		if all.kernels == nil {
			all.kernels = map[string]kernelNote{}
		}
		all.kernels[file.Digest] = note
	}
	if note.bootp && note.major >= 15 {
		r.fail("take the options BOOTP and BOOTP_NFSROOT out of its configuration: the loader hands its mount over", "the kernel %s is FreeBSD %d with options BOOTP: such a kernel loops on \"bootpc_call: sosend: 65\"", kernel, note.major)
	}
}

// kernelVersion is the kernel's own text "FreeBSD 15.1-RELEASE ..."; bootpCall
// is a function that options BOOTP alone bring.
var (
	kernelVersion = regexp.MustCompile(`FreeBSD (\d{1,3})\.\d{1,3}-[A-Z]`)
	bootpCall     = []byte("bootpc_call")
)

// readKernel reads a kernel once, in pieces that overlap by more than any text
// that is looked for.
func readKernel(in io.Reader) (note kernelNote, err error) {
	const overlap = 64
	buf := make([]byte, 1<<20)
	have := 0
	for {
		n, err := io.ReadFull(in, buf[have:])
		have += n
		piece := buf[:have]
		note.bootp = note.bootp || bytes.Contains(piece, bootpCall)
		if m := kernelVersion.FindSubmatch(piece); m != nil && note.major == 0 {
			note.major, _ = strconv.Atoi(string(m[1])) // three digits at most
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return note, nil
		}
		if err != nil {
			return note, err
		}
		have = copy(buf, piece[max(0, len(piece)-overlap):])
	}
}

// maxFstab bounds the fstab that is read.
const maxFstab = 1 << 20

// fstab reads the node's fstab as it will.
func (r *root) fstab() {
	const name = "/etc/fstab"
	file, ok := r.open(name)
	if !ok {
		return // a diskless node needs none
	}
	data := make([]byte, min(file.Size, maxFstab))
	if n, err := file.ReadAt(data, 0); err != nil && (!errors.Is(err, io.EOF) || n < len(data)) {
		r.fail("`rhizome verify` reads every byte", "%s cannot be read: %v", name, err)
		return
	}
	for _, f := range recipes.CheckFstab(name, data) {
		r.add(severityOf(f), f.Remedy, "%s:%d: %s", name, f.Pos.Line, f.Message)
	}
}

// Secret is a secret that is the operator's to give.
type Secret struct {
	Node string
	// File is where it lies in the store, Missing why it cannot be had.
	File    string
	Missing error
	Mode    fs.FileMode
}

// Secrets judges the secrets that are given by hand: serve does not start
// without them.
func Secrets(all []Secret) (out []Finding) {
	for _, s := range all {
		f := findings{what: AboutImage, node: s.Node}
		switch {
		case s.Missing != nil:
			f.fail("", "a secret is wanted: %v", s.Missing)
		case s.Mode.Perm()&0o077 != 0:
			f.warn("chmod 600 "+s.File, "the secret %q may be read by others (mode %04o)", s.File, s.Mode.Perm())
		}
		out = append(out, f.all...)
	}
	return out
}

// Exports are the writable exports of nodes, on one disk.
type Exports struct {
	// Quotas is what all of them may take together, in bytes.
	Quotas int64
	Nodes  int
	Disk   Disk
	// Unwritable are folders of nodes that cannot be written to, by node.
	Unwritable map[string]error
}

// Check judges the room for what nodes write.
func (e Exports) Check() []Finding {
	f := findings{what: AboutHost}
	if e.Disk.Total > 0 && e.Quotas > e.Disk.Total {
		f.warn("lower persistQuota in the recipe, or put the store on a larger disk",
			"the writable exports of %d node(s) may take %s together, and the disk of the store has %s in all: nodes get \"no space left\" before their quota", e.Nodes, units.Bytes(e.Quotas), units.Bytes(e.Disk.Total))
	}
	for _, node := range slices.Sorted(maps.Keys(e.Unwritable)) {
		f.node = node
		f.fail("give the folder to the user that serves", "its writable export cannot be served: %v", e.Unwritable[node])
	}
	return f.all
}

// Gone are nodes that run from a manifest that the store no longer has.
func Gone(nodes map[string]string) (out []Finding) {
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		f := findings{what: AboutImage, node: node}
		f.fail("pull that image again, or restart the node", "it runs from %s, which is not in the store: its files are stale when serve is started anew", nodes[node])
		out = append(out, f.all...)
	}
	return out
}

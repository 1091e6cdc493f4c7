package freebsd

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"rhizome/pipeline/tree"
)

// maxLine bounds a line of a METALOG in bytes. A path is at most 1,024 bytes
// and vis(3) writes at most four for each.
const maxLine = 64 << 10

// blanks separate the words of a line.
const blanks = " \t\r"

// Record is one line of a METALOG: a path with what the installation wanted
// it to be. Names of users and groups are kept as they stand.
type Record struct {
	// Path is clean and relative; "." is the root.
	Path string
	Kind tree.Kind
	// Mode holds the permission bits (07777).
	Mode uint32
	// User and Group are names, or numbers in decimal where the line has uid
	// and gid.
	User, Group string
	// Owned says that the line names an owner. install(1) leaves the owner,
	// the setuid bits and the flags out where it makes a hard link.
	Owned bool
	// Flags are names as chflags(1) takes them, sorted and comma-separated.
	Flags string
	// Target is a symbolic link's text.
	Target string
	// Major and Minor number a device.
	Major, Minor uint32
	// Size in bytes; -1 where the line has none.
	Size int64
	// SHA256 is in lower-case hex; empty where the line has none.
	SHA256 string
	// Line counts from 1.
	Line int
}

// ParseMETALOG reads what install(1) and mtree(8) write under -DNO_ROOT: the
// mtree 2.0 dialect (mtree(5)), one full path a line, with /set and /unset.
// An error names the line.
func ParseMETALOG(r io.Reader) ([]Record, error) {
	p := metalogParser{set: map[string]string{}}
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 4096), maxLine)
	for in.Scan() {
		p.line++
		if err := p.feed(in.Text()); err != nil {
			return nil, fmt.Errorf("METALOG line %d: %w", p.line, err)
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("METALOG line %d: %w", p.line+1, err)
	}
	if p.pending != "" {
		return nil, fmt.Errorf("METALOG line %d: the file ends within a continued line", p.line)
	}
	return p.records, nil
}

type metalogParser struct {
	line    int
	pending string
	set     map[string]string
	records []Record
}

func (p *metalogParser) feed(line string) error {
	line = p.pending + strings.Trim(line, blanks)
	p.pending = ""
	if strings.HasSuffix(line, `\`) {
		p.pending = strings.TrimSuffix(line, `\`) + " "
		if len(p.pending) > maxLine {
			return fmt.Errorf("the line is longer than %d bytes", maxLine)
		}
		return nil
	}
	if line == "" || line[0] == '#' {
		return nil
	}
	// Only ASCII separates: a byte above may be part of a name.
	words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(blanks, r) })
	switch words[0] {
	case "/set":
		return p.setDefaults(words[1:])
	case "/unset":
		for _, k := range words[1:] {
			delete(p.set, k)
		}
		return nil
	}
	rec, err := p.record(words)
	if err != nil {
		return err
	}
	p.records = append(p.records, rec)
	return nil
}

func (p *metalogParser) setDefaults(words []string) error {
	kv, err := keywords(words)
	if err != nil {
		return err
	}
	maps.Copy(p.set, kv)
	return nil
}

func keywords(words []string) (map[string]string, error) {
	kv := make(map[string]string, len(words))
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if k == "" {
			return nil, fmt.Errorf("%q has no keyword before its \"=\"", w)
		}
		kv[k] = v
	}
	return kv, nil
}

func (p *metalogParser) record(words []string) (Record, error) {
	name, err := unvis(words[0])
	if err != nil {
		return Record{}, err
	}
	if name != "." && !strings.Contains(name, "/") {
		return Record{}, fmt.Errorf("%q is no full path; only the mtree 2.0 form, \"./dir/name\", is read", words[0])
	}
	path, err := tree.Clean(name)
	if err != nil {
		return Record{}, err
	}
	own, err := keywords(words[1:])
	if err != nil {
		return Record{}, fmt.Errorf("%q: %w", path, err)
	}
	kv := maps.Clone(p.set)
	maps.Copy(kv, own)
	rec, err := newRecord(path, kv)
	if err != nil {
		return Record{}, fmt.Errorf("%q: %w", path, err)
	}
	rec.Line = p.line
	return rec, nil
}

var mtreeKinds = map[string]tree.Kind{
	"file": tree.File, "dir": tree.Dir, "link": tree.Symlink,
	"char": tree.CharDevice, "block": tree.BlockDevice, "fifo": tree.Fifo,
}

func newRecord(path string, kv map[string]string) (Record, error) {
	kind, ok := mtreeKinds[kv["type"]]
	if !ok {
		return Record{}, fmt.Errorf("type %q is none that an image can hold", kv["type"])
	}
	r := Record{Path: path, Kind: kind, Size: -1}
	for _, fill := range []func(*Record, map[string]string) error{fillMode, fillOwner, fillFlags, fillTarget, fillDevice, fillContent} {
		if err := fill(&r, kv); err != nil {
			return Record{}, err
		}
	}
	return r, nil
}

func fillMode(r *Record, kv map[string]string) error {
	if kv["mode"] == "" && r.Kind == tree.Symlink {
		r.Mode = 0o755
		return nil
	}
	m, err := strconv.ParseUint(kv["mode"], 8, 32)
	if err != nil || m > 0o7777 {
		return fmt.Errorf("mode %q is not octal permission bits", kv["mode"])
	}
	r.Mode = uint32(m)
	return nil
}

func fillOwner(r *Record, kv map[string]string) error {
	r.Owned = kv["uid"] != "" || kv["uname"] != ""
	r.User, r.Group = first(kv["uid"], kv["uname"], "root"), first(kv["gid"], kv["gname"], "wheel")
	return nil
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func fillFlags(r *Record, kv map[string]string) error {
	var flags []string
	for _, f := range strings.Split(kv["flags"], ",") {
		if setsFlag(f) {
			flags = append(flags, f)
		}
	}
	slices.Sort(flags)
	r.Flags = strings.Join(slices.Compact(flags), ",")
	return nil
}

// setsFlag tells a flag that is set from one that is cleared: "noschg" clears,
// and so does "dump", while "nodump" is itself a flag (strtofflags(3)).
func setsFlag(f string) bool {
	switch f {
	case "nodump":
		return true
	case "", "none", "dump":
		return false
	}
	return !strings.HasPrefix(f, "no")
}

func fillTarget(r *Record, kv map[string]string) error {
	if r.Kind != tree.Symlink {
		return nil
	}
	target, err := unvis(kv["link"])
	if err != nil {
		return err
	}
	if target == "" || strings.ContainsRune(target, 0) {
		return fmt.Errorf("the symbolic link has no target")
	}
	r.Target = target
	return nil
}

func fillContent(r *Record, kv map[string]string) error {
	if s := kv["size"]; s != "" && r.Kind == tree.File {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("size %q is no number of bytes", s)
		}
		r.Size = n
	}
	r.SHA256 = strings.ToLower(first(kv["sha256"], kv["sha256digest"]))
	return nil
}

// fillDevice reads device=FORMAT,MAJOR,MINOR or device=NUMBER (mtree(5)). A
// plain number is split as FreeBSD's dev_t is.
func fillDevice(r *Record, kv map[string]string) error {
	if r.Kind != tree.CharDevice && r.Kind != tree.BlockDevice {
		return nil
	}
	parts := strings.Split(kv["device"], ",")
	if len(parts) == 3 {
		parts = parts[1:]
	}
	var n []uint64
	for _, s := range parts {
		v, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return fmt.Errorf("device %q is neither a number nor FORMAT,MAJOR,MINOR", kv["device"])
		}
		n = append(n, v)
	}
	switch len(n) {
	case 1:
		r.Major, r.Minor = splitDev(n[0])
	case 2:
		r.Major, r.Minor = uint32(n[0]), uint32(n[1])
	default:
		return fmt.Errorf("device %q is neither a number nor FORMAT,MAJOR,MINOR", kv["device"])
	}
	return nil
}

// splitDev takes FreeBSD's dev_t apart as major() and minor() in
// sys/types.h do: 32 bits each, interleaved so that old 8+24-bit numbers keep
// their value.
func splitDev(d uint64) (major, minor uint32) {
	major = uint32(d>>32)&0xffffff00 | uint32(d>>8)&0xff
	minor = uint32(d>>24)&0xff00 | uint32(d)&0xffff00ff
	return major, minor
}

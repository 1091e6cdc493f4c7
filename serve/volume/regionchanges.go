package volume

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"rhizome/serve/node/nodeapi"
)

// regionChange is one entry of a tar of changes.
type regionChange struct {
	// path is the export's, without a slash at the ends.
	path string
	kind kind
	// removed takes the path away with all below it; meta keeps the bytes of
	// the file that is there.
	removed, meta  bool
	mode, uid, gid uint32
	mtime          moment
	target         string // of a symlink
	link           string // of a hard link: another path of the export
	major, minor   uint32
	xattrs         map[string]string
	// offset and size are where the bytes lie in the stream that was read.
	offset, size int64
}

// Bounds of a tar of changes.
const (
	maxChanges = 4 << 20
	maxXattrs  = 128
)

// counting notes how far a reader came.
type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// readChanges reads a tar of changes, whose names are the node's paths. It
// refuses what lies in none of the places, and what is no plain path; no name
// comes twice.
func readChanges(r io.Reader, at []place) ([]regionChange, error) {
	in := &counting{r: r}
	t := tar.NewReader(in)
	var all []regionChange
	seen := map[string]bool{}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, wrong("reading the changes: %w", err)
		}
		c, err := readChange(h, at)
		if err != nil {
			return nil, err
		}
		if seen[c.path] || len(all) >= maxChanges {
			return nil, wrong("the changes name %q twice, or are more than %d", c.path, maxChanges)
		}
		seen[c.path] = true
		c.offset = in.n // the tar reader reads no further than a header
		all = append(all, c)
	}
}

var changeKinds = map[byte]kind{tar.TypeReg: kindRegular, tar.TypeDir: kindDir, tar.TypeSymlink: kindSymlink,
	tar.TypeChar: kindChar, tar.TypeBlock: kindBlock, tar.TypeFifo: kindFifo, tar.TypeLink: kindRegular}

func readChange(h *tar.Header, at []place) (c regionChange, err error) {
	k, known := changeKinds[h.Typeflag]
	sparse := slices.ContainsFunc(slices.Collect(maps.Keys(h.PAXRecords)), func(k string) bool { return strings.HasPrefix(k, "GNU.sparse") })
	if !known || h.Size < 0 || sparse {
		return c, wrong("%q is of a type (%q) that cannot be written back", h.Name, h.Typeflag)
	}
	c = regionChange{kind: k, mode: uint32(h.Mode) & modeAll, uid: uint32(h.Uid), gid: uint32(h.Gid), mtime: momentOf(h.ModTime),
		target: h.Linkname, major: uint32(h.Devmajor), minor: uint32(h.Devminor), size: h.Size}
	name := h.Name
	if h.PAXRecords[nodeapi.PAXRemoved] != "" {
		c.removed = true
		name = path.Join(path.Dir(name), strings.TrimPrefix(path.Base(name), whiteoutPrefix))
	}
	c.meta = h.PAXRecords[nodeapi.PAXMeta] != ""
	if c.path, err = inPlaces(name, at); err != nil {
		return c, err
	}
	if h.Typeflag == tar.TypeLink {
		if c.link, err = inPlaces(h.Linkname, at); err == nil && c.link == c.path {
			err = wrong("%q is a link to itself", h.Name)
		}
		if err != nil {
			return c, err
		}
		c.target = ""
	}
	if k == kindSymlink && (c.target == "" || len(c.target) > maxPath || containsNUL(c.target)) {
		return c, wrong("the symlink %q leads to %q", h.Name, c.target)
	}
	return c, c.readXattrs(h)
}

func (c *regionChange) readXattrs(h *tar.Header) error {
	for _, k := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(k, xattrPrefix)
		if !ok {
			continue
		}
		if c.xattrs == nil {
			c.xattrs = map[string]string{}
		}
		if c.xattrs[name] = h.PAXRecords[k]; len(c.xattrs) > maxXattrs || len(name) > 255 || containsNUL(name) {
			return wrong("%q has an extended attribute that cannot be one, or more than %d", h.Name, maxXattrs)
		}
	}
	return nil
}

// inPlaces makes the export's path of a name in the tar.
func inPlaces(name string, at []place) (string, error) {
	p := "/" + strings.Trim(name, "/")
	if p != path.Clean(p) || len(p) > maxPath || containsNUL(p) {
		return "", wrong("%.200q is no plain path", name)
	}
	for part := range strings.SplitSeq(p[1:], "/") {
		if part == "" || len(part) > maxName {
			return "", wrong("%.200q is no plain path", name)
		}
	}
	if strings.Count(p, "/") > 2*maxDepth {
		return "", wrong("%.200q lies too deep", name)
	}
	for _, a := range at {
		if rest, ok := strings.CutPrefix(p+"/", a.node+"/"); ok {
			return strings.Trim(a.below+"/"+rest, "/"), nil
		}
	}
	return "", wrong("%.200q lies outside of the leased region", name)
}

func byPath(all []regionChange) map[string]*regionChange {
	by := make(map[string]*regionChange, len(all))
	for i := range all {
		by[all[i].path] = &all[i]
	}
	return by
}

// checkChanges refuses changes that do not fit each other, or the region: what
// lies in something must lie in a folder, and a leased path itself stays what
// it is.
func checkChanges(all []regionChange, by map[string]*regionChange, old *regionList, at []place, devices bool) error {
	for _, p := range at {
		if c, is := by[p.below], old.kindOf(p.below); c != nil && (c.removed || c.kind != is) {
			return wrong("%q is what was leased: it cannot be removed, or become something else", p.node)
		}
	}
	for i := range all {
		c := &all[i]
		if (c.kind.device()) && !c.removed && !devices {
			return wrong("%q is a device, which this export may not have", c.path)
		}
		if up := by[path.Dir(c.path)]; up != nil && !c.removed && (up.removed || up.kind != kindDir) {
			return wrong("%q lies in what is no folder", c.path)
		}
	}
	return nil
}

// units are the least folders, or single files, that hold all changes: one for
// each place that has some.
func units(all []regionChange, old *regionList, at []place) []string {
	var out []string
	for _, p := range at {
		unit, any := "", false
		for i := range all {
			c := &all[i]
			if !strings.HasPrefix(c.path+"/", p.below+"/") {
				continue
			}
			in := c.path
			if c.path != p.below && (c.removed || c.kind != kindDir || old.kindOf(c.path) != kindDir) {
				in = path.Dir(c.path)
			}
			if c.link != "" && strings.HasPrefix(c.link+"/", p.below+"/") && c.link != p.below {
				in = common(path.Dir(c.link), in)
			}
			if any {
				in = common(unit, in)
			}
			unit, any = in, true
		}
		if any {
			for unit != p.below && old.kindOf(unit) != kindDir {
				unit = path.Dir(unit)
			}
			out = append(out, unit)
		}
	}
	return out
}

// common is the path of the folders that two paths share.
func common(a, b string) string {
	for !strings.HasPrefix(b+"/", a+"/") {
		a = path.Dir(a)
	}
	return a
}

func describe(all []regionChange) string {
	removed := 0
	for i := range all {
		if all[i].removed {
			removed++
		}
	}
	return fmt.Sprintf("%d written, %d removed", len(all)-removed, removed)
}

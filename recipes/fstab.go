package recipes

import (
	"bytes"
	"path"
	"strings"
)

// FstabFields splits a line of fstab(5) into its fields; a comment or an empty
// line has none.
func FstabFields(line string) []string {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return nil
	}
	return strings.Fields(line)
}

// CheckFstab checks a whole fstab(5), which the findings call name.
func CheckFstab(name string, data []byte) Findings {
	c := &checker{said: map[Finding]bool{}}
	c.fstabText(name, data)
	return c.found
}

func (c *checker) fstabText(name string, data []byte) {
	have := map[string]Pos{}
	for i, line := range bytes.Split(data, []byte("\n")) {
		c.fstabLine(Line{string(line), Pos{File: name, Line: i + 1, Column: 1}}, have)
	}
}

// fstabLine checks one line by fstab(5): device, mount point, type, options,
// and two numbers that may be left out. have holds mount points seen before.
func (c *checker) fstabLine(l Line, have map[string]Pos) {
	f := FstabFields(l.Text)
	switch {
	case len(f) == 0:
		return
	case spaceInOptions(f):
		c.fail(l.Pos, "write the options without spaces: "+repaired(f), "the fstab line has a space in its options")
	case len(f) < 4:
		c.fail(l.Pos, "the fields are device, mount point, type, options, dump and pass", "the fstab line has %d fields of at least 4", len(f))
	case len(f) > 6:
		c.fail(l.Pos, "write a space within a name as \\040", "the fstab line has %d fields of at most 6", len(f))
	case strings.ContainsRune(l.Text, 0) || strings.Contains(l.Text, "\n"):
		c.fail(l.Pos, "write an element of the list per line", "the fstab entry is more than one line")
	default:
		c.fstabFields(l, f, have)
	}
}

// spaceInOptions sees "rw, noatime 0 0" and "rw ,noatime": what follows the
// options is neither a number nor missing.
func spaceInOptions(f []string) bool {
	if len(f) < 5 {
		return false
	}
	return strings.HasSuffix(f[3], ",") || strings.HasPrefix(f[4], ",") || !number(f[4]) || len(f) > 6 && !number(f[len(f)-3])
}

func number(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// repaired joins the options of a line that has spaces in them.
func repaired(f []string) string {
	var options, rest []string
	for i, w := range f[3:] {
		if i > 0 && number(w) {
			rest = f[3+i:]
			break
		}
		options = append(options, strings.Trim(w, ","))
	}
	words := append(append([]string{}, f[:3]...), strings.Join(options, ","))
	return strings.Join(append(words, rest...), " ")
}

func (c *checker) fstabFields(l Line, f []string, have map[string]Pos) {
	at, on := l.Pos, f[1]
	switch {
	case on == "none" || on == "swap":
	case !absolute(on):
		c.fail(at, "write it as /home", "the fstab line's mount point %s is not an absolute, plain path", clip(on))
	case on == "/":
		c.fail(at, "remove the line; the kernel has mounted the root already, and mounting it again needs what a diskless node may not have", "the fstab line mounts the root")
	default:
		place := path.Clean(on)
		if first, ok := have[place]; ok {
			c.fail(at, "remove one of the two", "%s is mounted twice; first at %s", clip(on), first)
		}
		have[place] = at
	}
	for _, w := range f[4:] {
		if !number(w) {
			c.fail(at, "end the line with \"0 0\"", "the fstab line ends in %s, which is no number", clip(w))
		}
	}
	if strings.Contains(","+f[3]+",", ",,") {
		c.fail(at, "remove one comma", "the fstab line has an empty option in %s", clip(f[3]))
	}
}

// absolute says whether a path is absolute and free of "..", "//" and the like.
func absolute(p string) bool {
	return path.IsAbs(p) && (path.Clean(p) == p || path.Clean(p)+"/" == p) && !strings.ContainsAny(p, "\x00\n")
}

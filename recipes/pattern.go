package recipes

import (
	"fmt"
	"strconv"
	"strings"
)

// maxNames bounds what one range can stand for. A cluster has at most 10,000
// nodes; a file system of memory has less than what a typing error can ask for.
const maxNames = 16384

// numbers is one element of a bracket: lo to hi, padded with zeros to width.
type numbers struct {
	lo, hi uint64
	width  int
}

// segment is a piece of a pattern: literal text, or a bracket.
type segment struct {
	text    string
	bracket []numbers
}

// parsePattern splits "n[1-3,7]-a" into segments. Base is 10, or 16 for MACs.
func parsePattern(s string, base int) ([]segment, error) {
	var out []segment
	for s != "" {
		open := strings.IndexAny(s, "[]")
		if open < 0 {
			return append(out, segment{text: s}), nil
		}
		end := strings.IndexByte(s, ']')
		if s[open] == ']' || end < 0 {
			return nil, fmt.Errorf("%s has a bracket without its partner", clip(s))
		}
		bracket, err := parseBracket(s[open+1:end], base)
		if err != nil {
			return nil, err
		}
		if open > 0 {
			out = append(out, segment{text: s[:open]})
		}
		out = append(out, segment{bracket: bracket})
		s = s[end+1:]
	}
	return out, nil
}

func parseBracket(s string, base int) ([]numbers, error) {
	var out []numbers
	for _, item := range strings.Split(s, ",") {
		lo, hi, ranged := strings.Cut(item, "-")
		if !ranged {
			hi = lo
		}
		r, err := parseNumbers(lo, hi, base)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", clip("["+s+"]"), err)
		}
		out = append(out, r)
	}
	return out, nil
}

func parseNumbers(lo, hi string, base int) (numbers, error) {
	a, errA := strconv.ParseUint(lo, base, 32)
	b, errB := strconv.ParseUint(hi, base, 32)
	switch {
	case errA != nil || errB != nil:
		return numbers{}, fmt.Errorf("%s is no range of numbers", clip(lo+"-"+hi))
	case a > b:
		return numbers{}, fmt.Errorf("the range %s-%s runs backwards", lo, hi)
	case len(lo) != len(hi) && (padded(lo) || padded(hi)):
		return numbers{}, fmt.Errorf("the range %s-%s pads with zeros in one end only", lo, hi)
	}
	r := numbers{lo: a, hi: b}
	if len(lo) == len(hi) {
		r.width = len(lo)
	}
	return r, nil
}

func padded(s string) bool { return len(s) > 1 && s[0] == '0' }

// count says how many names the segments stand for, up to maxNames and one.
func count(segs []segment) int {
	total := uint64(1)
	for _, s := range segs {
		if s.bracket == nil {
			continue
		}
		var n uint64
		for _, r := range s.bracket {
			n += r.hi - r.lo + 1
		}
		if total *= n; total > maxNames {
			return maxNames + 1
		}
	}
	return int(total)
}

// expand writes every name that a pattern stands for, the last bracket turning
// fastest.
func expand(pattern string, base int) ([]string, error) {
	segs, err := parsePattern(pattern, base)
	if err != nil {
		return nil, err
	}
	if count(segs) > maxNames {
		return nil, fmt.Errorf("%s stands for more than %d names", clip(pattern), maxNames)
	}
	out := []string{""}
	for _, s := range segs {
		out = s.extend(out, base)
	}
	return out, nil
}

func (s segment) extend(heads []string, base int) []string {
	if s.bracket == nil {
		for i := range heads {
			heads[i] += s.text
		}
		return heads
	}
	var out []string
	for _, head := range heads {
		for _, r := range s.bracket {
			for v := r.lo; v <= r.hi; v++ {
				out = append(out, head+r.format(v, base))
			}
		}
	}
	return out
}

func (r numbers) format(v uint64, base int) string {
	s := strconv.FormatUint(v, base)
	if len(s) < r.width {
		s = strings.Repeat("0", r.width-len(s)) + s
	}
	return s
}

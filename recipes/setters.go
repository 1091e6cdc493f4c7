package recipes

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// scalar returns the text of a plain value as it was written, so that "010",
// "1.10" and "yes" stay what the author typed.
func (d *decoder) scalar(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || null(n) {
		d.fail(n, fmt.Sprintf("%q is a text, not %s", d.key, shapeOf(n)), "")
		return "", false
	}
	return n.Value, true
}

// items returns the elements of a list; a single value is a list of one.
func (d *decoder) items(n *yaml.Node) []*yaml.Node {
	switch {
	case n.Kind == yaml.SequenceNode:
		if len(n.Content) > maxNames {
			d.fail(n, fmt.Sprintf("%q has %d elements; a list has at most %d", d.key, len(n.Content), maxNames), "")
			return nil
		}
		return n.Content
	case null(n):
		d.fail(n, fmt.Sprintf("%q is a list, not nothing", d.key), "write [] for an empty list")
		return nil
	}
	return []*yaml.Node{n}
}

// parsed is a setter for a plain value that a function understands.
func parsed[T, V any](get func(*T) *V, parse func(string) (V, error), remedy string) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		s, ok := d.scalar(n)
		if !ok {
			return
		}
		v, err := parse(s)
		if err != nil {
			d.fail(n, fmt.Sprintf("%q: %v", d.key, err), remedy)
			return
		}
		*get(into) = v
	}
}

func text[T any](get func(*T) *string) setter[T] {
	return parsed(get, func(s string) (string, error) { return s, nil }, "")
}

func oneOf[T any](get func(*T) *string, values ...string) setter[T] {
	return parsed(get, func(s string) (string, error) {
		if !slices.Contains(values, s) {
			return "", fmt.Errorf("%s is none of %s", clip(s), strings.Join(values, ", "))
		}
		return s, nil
	}, "")
}

func integer[T any](get func(*T) *int, lo, hi int) setter[T] {
	return parsed(get, func(s string) (int, error) {
		v, err := strconv.Atoi(s)
		if err != nil || v < lo || v > hi {
			return 0, fmt.Errorf("%s is no whole number from %d to %d", clip(s), lo, hi)
		}
		return v, nil
	}, "")
}

func boolean[T any](get func(*T) *bool) setter[T] {
	return parsed(get, func(s string) (bool, error) {
		if s != "true" && s != "false" {
			return false, fmt.Errorf("%s is neither true nor false", clip(s))
		}
		return s == "true", nil
	}, "")
}

func bytesSize[T any](get func(*T) *int64) setter[T] {
	return parsed(get, ParseSize, "write bytes, or a number with K, M or G, such as 64M")
}

// ParseSize reads "512", "64K", "64M" or "2G" as bytes; the units are powers
// of 1024, as mount(8) and tmpfs take them.
func ParseSize(s string) (int64, error) {
	digits, unit := s, int64(1)
	if n := len(s); n > 0 {
		if i := strings.IndexByte("KMG", s[n-1]&^0x20); i >= 0 {
			digits, unit = s[:n-1], 1<<(10*(i+1))
		}
	}
	v, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || v > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%s is no size", clip(s))
	}
	return int64(v) * unit, nil
}

func duration[T any](get func(*T) *time.Duration) setter[T] {
	return parsed(get, func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		if err != nil || v <= 0 {
			return 0, fmt.Errorf("%s is no duration", clip(s))
		}
		return v, nil
	}, "write it as 300s, 12h or 24h30m")
}

func moment[T any](get func(*T) *time.Time) setter[T] {
	return parsed(get, func(s string) (time.Time, error) {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil || v.Unix() < 0 || v.Nanosecond() != 0 || v.Unix() > math.MaxUint32 {
			return time.Time{}, fmt.Errorf("%s is no moment in whole seconds between 1970 and 2106", clip(s))
		}
		return v.UTC(), nil
	}, "write it as 2026-11-01T00:00:00Z")
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%s is no IPv4 address", clip(s))
	}
	return a, nil
}

func address[T any](get func(*T) *netip.Addr) setter[T] {
	return parsed(get, parseAddr, "write it as 10.77.0.1")
}

func subnet[T any](get func(*T) *netip.Prefix) setter[T] {
	return parsed(get, func(s string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || !p.Addr().Is4():
			return p, fmt.Errorf("%s is no IPv4 subnet", clip(s))
		case p != p.Masked():
			return p, fmt.Errorf("%s is an address within the subnet %s", clip(s), p.Masked())
		case p.Bits() < 8 || p.Bits() > 30:
			return p, fmt.Errorf("the subnet %s is not between /8 and /30", clip(s))
		}
		return p, nil
	}, "write the network's address and its bits, such as 10.77.0.0/24")
}

// texts reads a list of plain values, or one, and remembers where each stands.
func texts[T any](get func(*T) *[]string) setter[T] {
	return each(get, func(s string) (string, error) { return s, nil })
}

func each[T, V any](get func(*T) *[]V, parse func(string) (V, error)) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		out := []V{}
		for i, item := range d.items(n) {
			s, ok := d.scalar(item)
			if !ok {
				continue
			}
			v, err := parse(s)
			if err != nil {
				d.fail(item, fmt.Sprintf("%q: %v", d.key, err), "")
				continue
			}
			if p, ok := any(into).(placer); ok {
				p.place(d.key+"."+strconv.Itoa(i), d.pos(item))
			}
			out = append(out, v)
		}
		*get(into) = out
	}
}

// pairs reads a mapping whose keys are the author's own, in the order written.
func pairs[T any](get func(*T) *[]KV) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		if n.Kind != yaml.MappingNode {
			d.fail(n, fmt.Sprintf("%q is a mapping of names and values, not %s", d.key, shapeOf(n)), "write {name: value}")
			return
		}
		out, seen := make([]KV, 0, len(n.Content)/2), map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			name, ok := d.scalar(k)
			if line, twice := seen[name]; ok && twice {
				d.fail(k, fmt.Sprintf("%s is repeated in %q; line %d has it already", clip(name), d.key, line), "keep one of the two")
				continue
			}
			seen[name] = k.Line
			value := ""
			if !null(v) {
				value, ok = d.scalar(v)
			}
			if ok {
				out = append(out, KV{Key: name, Value: value, Pos: d.pos(k)})
			}
		}
		*get(into) = out
	}
}

// rules reads pairs into a map, remembering the place of each.
func rules[T any](get func(*T) *map[string]string) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		var list []KV
		pairs(func(l *[]KV) *[]KV { return l })(d, n, &list)
		out := make(map[string]string, len(list))
		for _, kv := range list {
			out[kv.Key] = kv.Value
			if p, ok := any(into).(placer); ok {
				p.place(d.key+"."+kv.Key, kv.Pos)
			}
		}
		*get(into) = out
	}
}

// part reads a mapping into a field, behind a pointer.
func part[T, S any](m mapping[S], get func(*T) **S) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		v := new(S)
		m.decode(d, n, v)
		*get(into) = v
	}
}

// inner reads a mapping into a field that is a value.
func inner[T, S any](m mapping[S], get func(*T) *S) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) { m.decode(d, n, get(into)) }
}

// list reads a list of mappings; a single one is a list of one.
func list[T, S any](m mapping[S], get func(*T) *[]S) setter[T] {
	return func(d *decoder, n *yaml.Node, into *T) {
		var out []S
		for _, item := range d.items(n) {
			var v S
			m.decode(d, item, &v)
			out = append(out, v)
		}
		*get(into) = out
	}
}

package kernel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Config is a finished kernel configuration: what config(8) would make of a
// file with everything it includes.
type Config struct {
	Ident string
	// Options maps a name to its value, "" where it has none.
	Options map[string]string
	Devices map[string]bool
}

// maxIncludes bounds how deep files may include each other.
const maxIncludes = 16

// Resolve reads a configuration (config(5)) with its includes. read returns a
// file's text by the name an include gives it. DEFAULTS is read first where
// there is one, as config(8) does.
func Resolve(name string, read func(name string) (string, error)) (Config, error) {
	r := resolver{read: read, c: Config{Options: map[string]string{}, Devices: map[string]bool{}}}
	if text, err := read("DEFAULTS"); err == nil {
		if err := r.text("DEFAULTS", text, 0); err != nil {
			return r.c, err
		}
	}
	return r.c, r.file(name, 0)
}

type resolver struct {
	read func(string) (string, error)
	c    Config
}

func (r *resolver) file(name string, depth int) error {
	if depth > maxIncludes {
		return fmt.Errorf("kernel configuration %q: files include each other more than %d deep", name, maxIncludes)
	}
	text, err := r.read(name)
	if err != nil {
		return fmt.Errorf("reading the kernel configuration %q: %w", name, err)
	}
	return r.text(name, text, depth)
}

func (r *resolver) text(name, text string, depth int) error {
	for i, line := range strings.Split(text, "\n") {
		word, rest := statement(line)
		if err := r.statement(word, rest, depth); err != nil {
			return fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
	}
	return nil
}

// statement cuts a line into its keyword and the rest, without the comment. A
// "#" within quotes is no comment.
func statement(line string) (word, rest string) {
	quoted := false
	for i, c := range line {
		if c == '"' {
			quoted = !quoted
		}
		if c == '#' && !quoted {
			line = line[:i]
			break
		}
	}
	line = strings.TrimSpace(line)
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return line, ""
	}
	return line[:end], strings.TrimSpace(line[end:])
}

func (r *resolver) statement(word, rest string, depth int) error {
	switch word {
	case "include":
		return r.file(strings.Trim(rest, `"`), depth+1)
	case "ident":
		r.c.Ident = strings.Trim(rest, `"`)
	case "option", "options":
		for _, o := range list(rest) {
			k, v, _ := strings.Cut(strings.Trim(o, `"`), "=")
			if k != "" {
				r.c.Options[k] = strings.Trim(v, `"`)
			}
		}
	case "nooption", "nooptions":
		for _, o := range list(rest) {
			delete(r.c.Options, o)
		}
	case "device", "devices":
		for _, d := range list(rest) {
			r.c.Devices[d] = true
		}
	case "nodevice", "nodevices":
		for _, d := range list(rest) {
			delete(r.c.Devices, d)
		}
	}
	return nil
}

// list splits "A, B=1" at its commas.
func list(s string) []string {
	var out []string
	for _, w := range strings.Split(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// Request is a kernel as a recipe asks for it.
type Request struct {
	// Config names an existing configuration, or a new one that includes
	// Include.
	Config, Include                        string
	Options, NoOptions, Devices, NoDevices []string
}

// New says that the request is for a configuration of our own.
func (q Request) New() bool { return q.Include != "" }

// Text writes the configuration of a request that is New. The lists keep the
// recipe's order, since config(8) lets a later word win.
func (q Request) Text(included Config) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made by rhizome from a recipe; GENERIC itself is left alone.\ninclude\t\t%s\nident\t\t%s\n\n", q.Include, q.Config)
	for _, group := range []struct {
		word  string
		names []string
	}{{"nooptions", q.NoOptions}, {"options", q.Options}, {"nodevice", expand(q.NoDevices, included)}, {"device", q.Devices}} {
		for _, n := range group.names {
			if err := plain(n); err != nil {
				return "", err
			}
			fmt.Fprintf(&b, "%s\t%s\n", group.word, n)
		}
	}
	return b.String(), nil
}

// plain refuses what would be more than one word of config(5).
func plain(name string) error {
	if name == "" || strings.ContainsAny(name, "\n#;") || len(strings.Fields(name)) != 1 {
		return fmt.Errorf("%q is not one name of a kernel option or device", name)
	}
	return nil
}

// families are devices that others cannot be linked without. Taking such a
// one away takes its family away too; config(8) alone would let the build run
// for minutes and then fail to link.
var families = map[string][]string{
	"sound": {"snd_*"},
	"wlan":  {"wlan_*", "ath", "ath_*", "ipw", "iwi", "iwn", "iwlwifi", "malo", "mwl", "ral", "rsu", "rtwn", "rum", "run", "uath", "ural", "urtw", "wpi", "zyd"},
	"usb":   {"uhci", "ohci", "ehci", "xhci", "usbhid", "ukbd", "ums", "umass", "u3g", "ucom", "uplcom"},
	"scbus": {"ch", "da", "sa", "cd", "pass", "ses", "umass"},
}

// expand replaces globs and families by the devices that the included
// configuration really has, so that what is written down is plain config(5).
func expand(names []string, included Config) []string {
	var out []string
	for _, n := range names {
		out = append(out, n)
		for _, pattern := range families[n] {
			out = append(out, matching(pattern, included)...)
		}
		if strings.ContainsAny(n, "*?") {
			out = append(out[:len(out)-1], matching(n, included)...)
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(out, func(n string) bool {
		again := seen[n]
		seen[n] = true
		return again
	})
}

func matching(pattern string, c Config) []string {
	var out []string
	for _, d := range slices.Sorted(maps.Keys(c.Devices)) {
		if matchGlob(pattern, d) {
			out = append(out, d)
		}
	}
	return out
}

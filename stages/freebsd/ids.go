package freebsd

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// IDs maps names to numbers as a source tree's own etc/master.passwd and
// etc/group say. The host's users have no part in it.
type IDs struct {
	users, groups map[string]uint32
}

// ReadIDs reads the two files in a FreeBSD source tree.
func ReadIDs(src string) (IDs, error) {
	users, err := readNames(filepath.Join(src, "etc", "master.passwd"))
	if err != nil {
		return IDs{}, err
	}
	groups, err := readNames(filepath.Join(src, "etc", "group"))
	return IDs{users: users, groups: groups}, err
}

func readNames(file string) (map[string]uint32, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the names of users and groups: %w", err)
	}
	names, err := ParseNames(text)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", file, err)
	}
	return names, nil
}

// ParseNames reads "name:password:number:..." lines: the form that
// master.passwd(5) and group(5) share in their first three fields.
func ParseNames(text []byte) (map[string]uint32, error) {
	names := map[string]uint32{}
	in := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' || line[0] == '+' {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d has fewer than three fields", n)
		}
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is no number", n, f[2])
		}
		names[f[0]] = uint32(id)
	}
	return names, in.Err()
}

// User gives a user's number; a name in decimal stands for itself.
func (i IDs) User(name string) (uint32, error) { return lookup(i.users, name, "user", "master.passwd") }

// Group gives a group's number; a name in decimal stands for itself.
func (i IDs) Group(name string) (uint32, error) { return lookup(i.groups, name, "group", "group") }

func lookup(names map[string]uint32, name, what, file string) (uint32, error) {
	if id, ok := names[name]; ok {
		return id, nil
	}
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	return 0, fmt.Errorf("the %s %q is not in the source tree's etc/%s", what, name, file)
}

// Package early makes the layer of a node's own life: the early script, which
// runs before the system's init and makes memory file systems, writable exports
// and the precache true; the static program rhizome-node; and the unit or rc
// script that says when userland is up.
//
// What differs between nodes (sizes, what is mounted where) is not here but in
// each node's own layer: /etc/rhizome/early.conf, made by package nodeconfig.
package early

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"

	"rhizome/pipeline/tree"
)

// Version is raised whenever this package makes another tree of the same
// program.
const Version = 1

//go:embed files
var texts embed.FS

// Spec says whose layer is made.
type Spec struct {
	// OS is "linux" or "freebsd".
	OS string
	// Program is the file of rhizome-node, as Find returns it.
	Program string
}

// file is one text of the layer.
type file struct {
	text, path string
	mode       uint32
}

// Linux's files lie in usr/sbin: where /sbin is a symlink to it, as in Debian,
// a layer with an entry below sbin/ would put a folder in its place in the eyes
// of other OCI tools; where it is a folder, usr/sbin is there as well.
var layout = map[string][]file{
	"linux": {
		{"linux.sh", "usr/sbin/rhizome-early", 0o755},
		{"rhizome-node.service", "usr/lib/systemd/system/rhizome-node.service", 0o644},
	},
	"freebsd": {
		{"freebsd.sh", "sbin/rhizome-early", 0o755},
		{"freebsd.rc", "etc/rc.d/rhizome_node", 0o755},
	},
}

var programs = map[string]string{"linux": "usr/sbin/rhizome-node", "freebsd": "sbin/rhizome-node"}

// Place is where a node mounts its root in memory before it moves into it.
const Place = "usr/lib/rhizome/root"

// Build makes the layer's tree.
func Build(s Spec) (*tree.Tree, error) {
	info, err := os.Stat(s.Program)
	if err != nil {
		return nil, fmt.Errorf("reading the program for nodes: %w", err)
	}
	entries := []tree.Entry{
		{Path: programs[s.OS], Kind: tree.File, Mode: 0o755, Body: tree.DiskFile{Name: s.Program, Length: info.Size()}},
		{Path: Place, Kind: tree.Dir, Mode: 0o755},
	}
	for _, f := range layout[s.OS] {
		text, err := texts.ReadFile(path.Join("files", f.text))
		if err != nil {
			return nil, err
		}
		entries = append(entries, tree.Entry{Path: f.path, Kind: tree.File, Mode: f.mode, Body: tree.Bytes(text)})
	}
	if s.OS == "linux" {
		// What "systemctl enable" would make, below /usr: an /etc that the node
		// keeps at the server cannot lose it.
		entries = append(entries, tree.Entry{Path: "usr/lib/systemd/system/multi-user.target.wants/rhizome-node.service",
			Kind: tree.Symlink, Mode: 0o777, Target: "../rhizome-node.service"})
	}
	t := tree.New()
	for _, e := range entries {
		if err := t.Add(e); err != nil {
			return nil, fmt.Errorf("making the early script's layer: %w", err)
		}
	}
	return t, nil
}

// Inputs are what the layer is made of: the program and the texts, by digest.
func Inputs(s Spec) (map[string]string, error) {
	f, err := os.Open(s.Program)
	if err != nil {
		return nil, fmt.Errorf("reading the program for nodes: %w", err)
	}
	defer f.Close()
	in := map[string]string{}
	if in["program"], err = digest(f); err != nil {
		return nil, fmt.Errorf("reading the program for nodes: %w", err)
	}
	for _, l := range layout[s.OS] {
		text, err := texts.Open(path.Join("files", l.text))
		if err != nil {
			return nil, err
		}
		if in["/"+l.path], err = digest(text); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

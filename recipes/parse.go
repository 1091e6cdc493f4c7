package recipes

import (
	"io/fs"
	"path/filepath"
)

// Parse reads a recipe's text. The file's name appears in positions, fsys is
// the folder that the recipe's relative paths start at. Profiles are laid under
// nodes and ranges are unrolled. It reports everything that is wrong with the
// form; what the recipe means is looked at by Validate. The recipe is nil where
// the text is no YAML mapping at all, and otherwise holds what could be read.
func Parse(file string, data []byte, fsys fs.FS) (*Recipe, Findings) {
	d := &decoder{file: file}
	root := d.document(data)
	if root == nil {
		return nil, d.findings.Sorted()
	}
	r := &draft{}
	r.File, r.Dir, r.FS = file, filepath.Dir(file), fsys
	recipeKeys().decode(d, root, r)
	unroll(d, r)
	defaults(&r.Recipe)
	return &r.Recipe, d.findings.Sorted()
}

// Check is what lint does: Parse, then Validate, all findings in order.
func Check(file string, data []byte, fsys fs.FS) (*Recipe, Findings) {
	r, found := Parse(file, data, fsys)
	if r != nil {
		found = append(found, Validate(r, fsys)...)
	}
	return r, found.Sorted()
}

// defaults fills in what the recipe leaves out.
func defaults(r *Recipe) {
	if r.Arch == "" {
		r.Arch = "amd64"
	}
	if d := r.Source.Debian; d != nil {
		debianDefaults(d)
	}
	if d := r.Source.Dists; d != nil && d.Sets == nil {
		d.Sets = []string{"base", "kernel"}
	}
	kernels := kernelDefaults(r.Stages)
	early := earlyNodes(r.Stages)
	for i := range r.Nodes {
		nodeDefaults(&r.Nodes[i], kernels)
		r.Nodes[i].Early = early(r.Nodes[i].Name)
	}
}

// earlyNodes says which nodes the early stage is for. A set of nodes that
// cannot be read is reported where the stages are checked.
func earlyNodes(list []Stage) func(string) bool {
	for _, s := range list {
		if s.Early == nil {
			continue
		}
		if set, err := ParseNodeSet(s.Nodes); s.Nodes != "" && err == nil {
			return set.Match
		}
		return func(string) bool { return true }
	}
	return func(string) bool { return false }
}

func debianDefaults(d *Debian) {
	if d.Components == nil {
		d.Components = []string{"main"}
	}
	if d.Variant == "" {
		d.Variant = "minbase"
	}
}

// kernelDefaults names the kernels and returns their names.
func kernelDefaults(list []Stage) (names []string) {
	for _, s := range list {
		if s.Kernel == nil {
			continue
		}
		if s.Kernel.Name == "" {
			s.Kernel.Name = s.Kernel.Config
		}
		if s.Kernel.Name == "" {
			s.Kernel.Name = "default"
		}
		names = append(names, s.Kernel.Name)
	}
	return names
}

func nodeDefaults(n *Node, kernels []string) {
	if n.Root == "" {
		n.Root = "nfs"
	}
	if n.Etc == "none" {
		n.Etc = ""
	}
	if n.Persist == "none" {
		n.Persist = ""
	}
	if n.Shared == "none" {
		n.Shared = ""
	}
	if n.Kernel == "" && len(kernels) == 1 {
		n.Kernel = kernels[0]
	}
	n.Secrets = secretDefaults(n.Secrets)
}

// secretDefaults returns a copy: nodes of a range share their profile's list.
func secretDefaults(list []Secret) []Secret {
	out := make([]Secret, len(list))
	for i, s := range list {
		if s.Kind == "ssh-host-keys" && s.Path == "" {
			s.Path = "/etc/ssh"
		}
		if _, given := s.of["mode"]; !given {
			s.Mode = 0o600
		}
		out[i] = s
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

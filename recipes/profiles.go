package recipes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxMerged bounds how many list elements inheriting may copy: profiles on
// profiles could otherwise make much of little.
const maxMerged = 1 << 18

// inheritance lays profiles under nodes.
type inheritance struct {
	d        *decoder
	profiles map[string]*profile
	merged   int
}

func newInheritance(d *decoder, list []profile) *inheritance {
	in := &inheritance{d: d, profiles: map[string]*profile{}}
	for i := range list {
		in.profiles[list[i].name.text] = &list[i]
	}
	for i := range list {
		in.order(&list[i].nodeDraft, []string{list[i].name.text}, nil)
	}
	return in
}

// order lists the profiles that lie under a draft, lowest first and each once.
// Cycles are reported where a profile of the cycle names the next.
func (in *inheritance) order(n *nodeDraft, path []string, have []string) []string {
	for _, w := range n.profiles {
		p := in.profiles[w.text]
		switch {
		case slices.Contains(path, w.text):
			if w.text == path[0] {
				in.d.failAt(w.pos, fmt.Sprintf("the profile %q inherits itself: %s", w.text, strings.Join(append(path, w.text), " -> ")), "remove one of these names")
			}
		case p == nil:
			if len(path) <= 1 {
				in.d.failAt(w.pos, fmt.Sprintf("there is no profile %s", clip(w.text)), in.known())
			}
		case len(path) >= maxDepth:
			in.d.failAt(w.pos, fmt.Sprintf("profiles inherit each other more than %d deep", maxDepth), "")
		case !slices.Contains(have, w.text):
			have = in.order(&p.nodeDraft, append(slices.Clone(path), w.text), have)
			have = append(have, w.text)
		}
	}
	return have
}

func (in *inheritance) known() string {
	if len(in.profiles) == 0 {
		return "the recipe has no profiles"
	}
	return "the profiles are " + strings.Join(slices.Sorted(maps.Keys(in.profiles)), ", ")
}

// lay returns the node with its profiles under it.
func (in *inheritance) lay(n *nodeDraft) Node {
	out := Node{}
	for _, name := range in.order(n, nil, nil) {
		out = in.over(out, &in.profiles[name].Node)
	}
	return in.over(out, &n.Node)
}

// over lays the keys of a node over another: a text replaces, a list is
// appended, a mapping is merged by its keys.
func (in *inheritance) over(low Node, up *Node) Node {
	out := low
	for to, from := range map[*string]string{&out.Kernel: up.Kernel, &out.Root: up.Root, &out.Etc: up.Etc, &out.Persist: up.Persist, &out.Shared: up.Shared} {
		if from != "" {
			*to = from
		}
	}
	if _, given := up.of["persistQuota"]; given {
		out.PersistQuota = up.PersistQuota
	}
	if _, given := up.of["persistDevices"]; given {
		out.PersistDevices = up.PersistDevices
	}
	out.Cmdline = strings.TrimSpace(low.Cmdline + " " + up.Cmdline)
	out.Fstab = joined(in, low.Fstab, up.Fstab)
	out.Files = joined(in, low.Files, up.Files)
	out.Secrets = joined(in, low.Secrets, up.Secrets)
	out.RCConf = in.keyed(low.RCConf, up.RCConf)
	out.LoaderConf = in.keyed(low.LoaderConf, up.LoaderConf)
	out.Kenv = in.keyed(low.Kenv, up.Kenv)
	out.Tmpfs = in.keyed(low.Tmpfs, up.Tmpfs)
	out.Pos = up.Pos
	out.of = maps.Clone(low.of)
	for k, p := range up.of {
		out.place(k, p)
	}
	return out
}

// room says whether n more elements may be copied, and reports once if not.
func (in *inheritance) room(n int) bool {
	before := in.merged
	in.merged += n
	if before <= maxMerged && in.merged > maxMerged {
		in.d.failAt(Pos{File: in.d.file}, "the profiles' lists are too long for the number of nodes that inherit them", "move them into files or into a stage")
	}
	return in.merged <= maxMerged
}

func joined[T any](in *inheritance, low, up []T) []T {
	switch {
	case len(up) == 0:
		return low
	case len(low) == 0 || !in.room(len(low)+len(up)):
		return up
	}
	return slices.Concat(low, up)
}

func (in *inheritance) keyed(low, up []KV) []KV {
	switch {
	case len(up) == 0:
		return low
	case len(low) == 0 || !in.room(len(low)+len(up)):
		return up
	}
	out := slices.Clone(low)
	at := map[string]int{}
	for i, kv := range out {
		at[kv.Key] = i
	}
	for _, kv := range up {
		if i, ok := at[kv.Key]; ok {
			out[i] = kv
			continue
		}
		out = append(out, kv)
	}
	return out
}

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"rhizome/pipeline/tree"
	"rhizome/stages/debian/tool"
)

// stamps are what tells a touched path: its inode's number and time of last
// change, which no program can set back (inode(7), "ctime").
type stamps map[string]stamp

type stamp struct{ inode, changed string }

// list reads the stamps of the root as it is.
func (r *run) list(ctx context.Context) (stamps, error) {
	var out strings.Builder
	err := tool.Command{Doing: "listing the root", Args: r.m.list(r.root), Stdout: &out, Env: plainEnv(), Kill: true}.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.c.Doing, err)
	}
	return parseStamps(out.String())
}

// parseStamps reads records "INODE CTIME PATH", each ended by a NUL.
func parseStamps(text string) (stamps, error) {
	s := stamps{}
	for rec := range strings.SplitSeq(text, "\x00") {
		if rec == "" {
			continue
		}
		f := strings.SplitN(rec, " ", 3)
		if len(f) != 3 {
			return nil, fmt.Errorf("listing the root: find printed %q, which is no inode, time and path", rec)
		}
		p, err := tree.Clean(f[2])
		if err != nil {
			return nil, fmt.Errorf("listing the root: %w", err)
		}
		s[p] = stamp{f[0], f[1]}
	}
	return s, nil
}

// touched lists the paths that are not as they were, in a layer's order. The
// names of one inode go together, so that hard links stay links.
func touched(before, after stamps) []string {
	inodes := map[string]bool{}
	for p, now := range after {
		if before[p] != now {
			inodes[now.inode] = true
		}
	}
	var paths []string
	for p, now := range after {
		if inodes[now.inode] {
			paths = append(paths, p)
		}
	}
	slices.SortFunc(paths, func(a, b string) int {
		if tree.Less(a, b) {
			return -1
		}
		return 1
	})
	return paths
}

// collect reads what the command touched and lays it over what it left alone.
func (r *run) collect(ctx context.Context, before stamps) (*tree.Tree, error) {
	after, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	paths := touched(before, after)
	changed, err := r.pack(ctx, paths)
	if err != nil {
		return nil, err
	}
	upper, err := compose(r.lower, after, paths, changed)
	if err != nil {
		return nil, fmt.Errorf("%s: reading the root: %w", r.c.Doing, err)
	}
	return upper, nil
}

// pack makes a tar of the paths and reads it.
func (r *run) pack(ctx context.Context, paths []string) (*tree.Tree, error) {
	if len(paths) == 0 {
		return tree.New(), nil
	}
	names := filepath.Join(r.env.Work, "changed")
	list := "./" + strings.Join(paths, "\x00./") + "\x00"
	if err := os.WriteFile(names, []byte(list), 0o644); err != nil {
		return nil, fmt.Errorf("%s: listing what changed: %w", r.c.Doing, err)
	}
	file := filepath.Join(r.env.Work, "changed.tar")
	err := tool.Command{
		Doing: "reading what the command changed", Args: r.m.pack(r.root, names, file), Env: plainEnv(),
		LogFile: r.env.LogFile, Explain: explain(r.env.Work), Kill: true,
	}.Run(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.c.Doing, err)
	}
	return tree.FromTar(file)
}

// compose is the root after the command: touched paths as they are now, the
// rest as lower has it. A path that is in neither was made to mount on; a
// socket is in no tar.
func compose(lower *tree.Tree, after stamps, paths []string, changed *tree.Tree) (*tree.Tree, error) {
	isChanged := map[string]bool{}
	for _, p := range paths {
		isChanged[p] = true
	}
	out := tree.New()
	var devices, keep []*tree.Entry
	for _, e := range lower.Entries() {
		_, there := after[e.Path]
		switch {
		case device(e):
			devices = append(devices, e)
		case there && !isChanged[e.Path]:
			keep = append(keep, e)
		}
	}
	for _, e := range changed.Entries() {
		if !e.Implied {
			keep = append(keep, e)
		}
	}
	for _, e := range keep {
		if err := out.Add(*e); err != nil {
			return nil, err
		}
	}
	return out, errors.Join(putBack(out, devices), out.Normalize())
}

func device(e *tree.Entry) bool { return e.Kind == tree.CharDevice || e.Kind == tree.BlockDevice }

// putBack adds the devices that were not unpacked, where their directory still
// is and nothing took their place.
func putBack(t *tree.Tree, devices []*tree.Entry) error {
	for _, e := range devices {
		dir := t.Lookup(path.Dir(e.Path))
		if dir == nil || dir.Kind != tree.Dir || t.Lookup(e.Path) != nil {
			continue
		}
		if err := t.Add(*e); err != nil {
			return err
		}
	}
	return nil
}

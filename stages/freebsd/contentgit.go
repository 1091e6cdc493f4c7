package freebsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// readGit lets git itself name the working tree, committed or not: an index of
// our own is brought up to date with the working tree and written as a tree
// object. The user's index is left alone, and new objects go to a folder of
// ours. A clean tree costs one stat a file.
func (r Reader) readGit(ctx context.Context, dir string) (Content, error) {
	g, done, err := r.gitIn(ctx, dir)
	if done != nil {
		defer done()
	}
	if err != nil {
		return Content{}, err
	}
	treeID, err := g.worktree(ctx)
	if err != nil {
		return Content{}, err
	}
	top, err := g.list(ctx, treeID, ".")
	if err != nil {
		return Content{}, err
	}
	ids := map[string]string{}
	var names []string
	for _, e := range top {
		ids[e.path] = e.id
		names = append(names, e.path)
	}
	deep, err := g.deep(ctx, treeID)
	return Content{List: names, ID: func(p string) (string, error) { return lookupID(ids, deep, p), nil }}, err
}

func lookupID(ids, deep map[string]string, p string) string {
	if id, ok := ids[p]; ok {
		return id
	}
	if id, ok := deep[p]; ok {
		return id
	}
	return Absent
}

// privateGit is git with an index and an object folder of our own.
type privateGit struct {
	dir, index string
	env        []string
}

func (r Reader) gitIn(ctx context.Context, dir string) (g privateGit, done func(), err error) {
	state, done := r.State, func() {}
	if state == "" {
		if state, err = os.MkdirTemp("", "rhizome-git-"); err != nil {
			return g, nil, err
		}
		done = func() { _ = os.RemoveAll(state) }
	}
	r.State = state
	g = privateGit{dir: dir, index: r.stateFile(dir, "index")}
	objects := r.stateFile(dir, "objects")
	if err := os.MkdirAll(objects, 0o755); err != nil {
		return g, done, fmt.Errorf("making a place for git's objects: %w", err)
	}
	// Two builds would take each other's index away, and name an empty tree.
	unlock, err := lock(ctx, r.stateFile(dir, "index.mutex"), false, nil)
	if err != nil {
		return g, done, err
	}
	remove := done
	done = func() { unlock(); remove() }
	theirs, err := g.run(ctx, "rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err != nil {
		return g, done, err
	}
	g.env = []string{"GIT_INDEX_FILE=" + g.index, "GIT_OBJECT_DIRECTORY=" + objects, "GIT_ALTERNATE_OBJECT_DIRECTORIES=" + theirs, "GIT_OPTIONAL_LOCKS=0"}
	return g, done, nil
}

func (g privateGit) run(ctx context.Context, args ...string) (string, error) {
	// The tree may belong to somebody else; naming its content runs nothing of
	// it, so git's check of the owner is told that this is meant.
	all := append([]string{"-C", g.dir, "-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"}, args...)
	cmd := exec.CommandContext(ctx, "git", all...)
	cmd.Env = append(append(gitEnviron(), "LC_ALL=C"), g.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("running git %s in %q: %w: %s", args[0], g.dir, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// gitEnviron is the caller's environment without what says which repository is
// meant (git-rev-parse(1), "--local-env-vars"): a hook, in which builds are
// started, has it set, and it would go before -C. Settings stay, since they may
// be what the caller logs in with.
func gitEnviron() []string {
	local := []string{"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE",
		"GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR"}
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(local, name)
	})
}

// worktree returns the tree object of the working tree. Objects that an
// earlier run knew may have been collected since: then it starts afresh.
func (g privateGit) worktree(ctx context.Context) (string, error) {
	id, err := g.addAll(ctx)
	if err == nil || ctx.Err() != nil {
		return id, err
	}
	if err := os.Remove(g.index); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	return g.addAll(ctx)
}

func (g privateGit) addAll(ctx context.Context) (string, error) {
	if err := g.begin(ctx); err != nil {
		return "", err
	}
	if _, err := g.run(ctx, "add", "--all", "--force", "."); err != nil {
		return "", err
	}
	return g.run(ctx, "write-tree")
}

// begin gives a new index what the user's own knows, so that nothing that git
// has hashed already is hashed again.
func (g privateGit) begin(ctx context.Context) error {
	if _, err := os.Stat(g.index); err == nil {
		return os.RemoveAll(g.index + ".lock")
	}
	plain := privateGit{dir: g.dir}
	theirs, err := plain.run(ctx, "rev-parse", "--path-format=absolute", "--git-path", "index")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(theirs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a repository without an index yet: add hashes everything
	}
	if err != nil {
		return fmt.Errorf("reading git's index: %w", err)
	}
	return os.WriteFile(g.index, data, 0o644)
}

type gitEntry struct{ path, id string }

// list reads "git ls-tree": MODE SP TYPE SP NAME TAB PATH NUL.
func (g privateGit) list(ctx context.Context, treeID string, args ...string) ([]gitEntry, error) {
	cmd := []string{"ls-tree", "-z", "--full-tree", treeID}
	if args[0] != "." {
		cmd = append(cmd, args...)
	}
	out, err := g.run(ctx, cmd...)
	if err != nil {
		return nil, err
	}
	var entries []gitEntry
	for _, rec := range strings.Split(strings.TrimSuffix(out, "\x00"), "\x00") {
		meta, path, ok := strings.Cut(rec, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 3 {
			continue
		}
		entries = append(entries, gitEntry{path: path, id: objectID(f[0], f[2])})
	}
	return entries, nil
}

// objectID joins what a tree entry says: an executable file is another input
// than the same bytes without the bit.
func objectID(mode, id string) string { return strings.TrimLeft(mode, "0") + ":" + id }

// deep names the paths below the top that stages select.
func (g privateGit) deep(ctx context.Context, treeID string) (map[string]string, error) {
	var paths []string
	for _, p := range append(Content{}.KernelReads(), deepReads()...) {
		if strings.Contains(p, "/") {
			paths = append(paths, filepath.ToSlash(p))
		}
	}
	entries, err := g.list(ctx, treeID, paths...)
	if err != nil {
		return nil, err
	}
	ids := map[string]string{}
	for _, e := range entries {
		ids[e.path] = e.id
	}
	return ids, nil
}

func deepReads() []string {
	return []string{"sys/conf/newvers.sh", "sys/amd64/conf/GENERIC.hints", "sys/arm64/conf/GENERIC.hints"}
}

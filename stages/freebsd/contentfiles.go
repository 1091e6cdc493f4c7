package freebsd

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// readFiles names a tree that is no checkout by computing git's object names.
// What is known of a file is remembered by its size, times and inode.
func (r Reader) readFiles(ctx context.Context, dir string) (Content, error) {
	w := walker{root: dir, known: r.load(dir), ids: map[string]string{}, now: r.now()}
	if err := w.files(ctx); err != nil {
		return Content{}, fmt.Errorf("reading the source tree %q: %w", dir, err)
	}
	top, err := w.trees()
	if err != nil {
		return Content{}, err
	}
	if err := r.save(dir, w.stamps); err != nil {
		return Content{}, err
	}
	id := func(p string) (string, error) { return lookupID(w.ids, nil, p), nil }
	return Content{List: top, ID: id}, nil
}

// stamp is what must be unchanged for a file's name to be believed. The
// change time moves even when somebody sets the modification time back.
type stamp struct {
	size, mtime, ctime int64
	inode              uint64
	id                 string
}

type walker struct {
	root  string
	known map[string]stamp
	now   time.Time

	mu     sync.Mutex
	ids    map[string]string // path to "MODE:NAME"
	stamps map[string]stamp
	names  map[string][]string // folder to its entries
}

func (w *walker) files(ctx context.Context) error {
	w.stamps, w.names = map[string]stamp{}, map[string][]string{}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers())
	err := filepath.WalkDir(w.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return firstError(err, ctx.Err())
		}
		rel, _ := filepath.Rel(w.root, p)
		if rel == "." {
			return nil
		}
		if rel == ".git" {
			return skip(d)
		}
		parent := filepath.Dir(rel)
		w.names[parent] = append(w.names[parent], rel)
		if d.IsDir() {
			return nil
		}
		return w.file(rel, d, g.Go)
	})
	return firstError(g.Wait(), err)
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// file names a file at once if it is known, and lets later read it otherwise.
func (w *walker) file(rel string, d fs.DirEntry, later func(func() error)) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	mode, err := gitMode(info)
	if err != nil {
		return err
	}
	s := stampOf(info)
	if old, ok := w.known[rel]; ok && s.same(old) {
		s.id = old.id
		w.keep(rel, mode, s)
		return nil
	}
	later(func() error {
		if s.id, err = blobID(filepath.Join(w.root, rel), info); err == nil {
			w.keep(rel, mode, s)
		}
		return err
	})
	return nil
}

func (w *walker) keep(rel, mode string, s stamp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids[rel] = objectID(mode, s.id)
	// A file changed in this very moment may change again within the same
	// tick of the clock, so it is not remembered (git calls that "racy").
	if w.now.UnixNano()-max(s.mtime, s.ctime) > int64(2*time.Second) && !strings.ContainsAny(rel, "\n") {
		w.stamps[rel] = s
	}
}

func (s stamp) same(o stamp) bool {
	return s.size == o.size && s.mtime == o.mtime && s.ctime == o.ctime && s.inode == o.inode
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{size: info.Size(), mtime: info.ModTime().UnixNano()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.ctime, s.inode = changeTime(st), uint64(st.Ino) //nolint:unconvert // other systems count in other widths
	}
	return s
}

func gitMode(info fs.FileInfo) (string, error) {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "120000", nil
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is neither a file nor a symbolic link", info.Name())
	case info.Mode()&0o100 != 0:
		return "100755", nil
	}
	return "100644", nil
}

// blobID is the name git gives to a file's content: the SHA-1 of "blob SIZE"
// NUL and the bytes. It names an input; nothing trusts it as a signature.
func blobID(file string, info fs.FileInfo) (string, error) {
	h := sha1.New()
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		fmt.Fprintf(h, "blob %d\x00%s", len(target), target)
		return hex.EncodeToString(h.Sum(nil)), err
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fmt.Fprintf(h, "blob %d\x00", info.Size())
	n, err := io.Copy(h, f)
	if err == nil && n != info.Size() {
		err = fmt.Errorf("%q changed while it was read; let nothing write to the source tree during a build", file)
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

// trees gives every folder its tree object's name, deepest first, and returns
// the entries of the top. Empty folders do not exist for git.
func (w *walker) trees() ([]string, error) {
	dirs := make([]string, 0, len(w.names))
	for d := range w.names {
		dirs = append(dirs, d)
	}
	sort.Slice(dirs, func(i, j int) bool { return depth(dirs[i]) > depth(dirs[j]) })
	for _, d := range dirs {
		if err := w.tree(d); err != nil {
			return nil, err
		}
	}
	var top []string
	for _, p := range w.names["."] {
		if w.ids[p] != "" {
			top = append(top, p)
		}
	}
	return top, nil
}

func depth(dir string) int {
	if dir == "." {
		return -1
	}
	return strings.Count(dir, "/")
}

// tree hashes "MODE NAME" NUL and the twenty bytes of each entry, sorted as
// though folders ended in "/".
func (w *walker) tree(dir string) error {
	type item struct{ key, mode, name, id string }
	var items []item
	for _, p := range w.names[dir] {
		mode, id, ok := strings.Cut(w.ids[p], ":")
		if !ok {
			continue
		}
		name := filepath.Base(p)
		key := name
		if mode == "40000" {
			key += "/"
		}
		items = append(items, item{key, mode, name, id})
	}
	if len(items) == 0 {
		return nil
	}
	sort.Slice(items, func(i, j int) bool { return items[i].key < items[j].key })
	var body strings.Builder
	for _, it := range items {
		raw, err := hex.DecodeString(it.id)
		if err != nil {
			return fmt.Errorf("reading the remembered name of %q: %w", it.name, err)
		}
		fmt.Fprintf(&body, "%s %s\x00%s", it.mode, it.name, raw)
	}
	sum := sha1.Sum(fmt.Appendf(nil, "tree %d\x00%s", body.Len(), body.String()))
	w.ids[dir] = objectID("40000", hex.EncodeToString(sum[:]))
	return nil
}

// load reads what save wrote; whatever is wrong with it costs time only.
func (r Reader) load(dir string) map[string]stamp {
	known := map[string]stamp{}
	if r.State == "" {
		return known
	}
	f, err := os.Open(r.stateFile(dir, "files"))
	if err != nil {
		return known
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		if path, s, ok := parseStamp(in.Text()); ok {
			known[path] = s
		}
	}
	return known
}

func parseStamp(line string) (path string, s stamp, ok bool) {
	f := strings.SplitN(line, " ", 6)
	if len(f) != 6 || len(f[4]) != 2*sha1.Size {
		return "", s, false
	}
	for i, to := range []*int64{&s.size, &s.mtime, &s.ctime} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return "", s, false
		}
		*to = n
	}
	inode, err := strconv.ParseUint(f[3], 10, 64)
	s.inode, s.id = inode, f[4]
	return f[5], s, err == nil
}

func (r Reader) save(dir string, stamps map[string]stamp) error {
	if r.State == "" {
		return nil
	}
	if err := os.MkdirAll(r.State, 0o755); err != nil {
		return fmt.Errorf("remembering the source tree's content: %w", err)
	}
	f, err := os.CreateTemp(r.State, ".files-")
	if err != nil {
		return fmt.Errorf("remembering the source tree's content: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	out := bufio.NewWriter(f)
	for p, s := range stamps {
		fmt.Fprintf(out, "%d %d %d %d %s %s\n", s.size, s.mtime, s.ctime, s.inode, s.id, p)
	}
	if err := firstError(out.Flush(), f.Close()); err != nil {
		return fmt.Errorf("remembering the source tree's content: %w", err)
	}
	return os.Rename(f.Name(), r.stateFile(dir, "files"))
}

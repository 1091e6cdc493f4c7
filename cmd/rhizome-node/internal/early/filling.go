package early

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"rhizome/cmd/rhizome-node/internal/unpack"
	"rhizome/serve/node/nodeapi"
)

// filling is one bundle on its way into memory. One goroutine runs it; the other
// one, which the script waits for, looks on and may lay the first part.
type filling struct {
	s     *session
	blob  *blob
	dir   string
	limit int64
	began time.Time

	mu sync.Mutex
	// parts are folders that are whole and verified, the upper one first.
	parts []string
	count unpack.Count
	// laid are the folders of the root that the parts lie over.
	laid []string
}

// slow says whether the boot is to go on without the rest. A part that comes first
// is waited for as long as anything comes; after it unpacking counts too.
func (f *filling) slow() bool {
	b := f.blob
	read := b.read.Load()
	switch {
	case b.layer.First == nil || read == 0:
		return b.slow()
	case !f.has():
		return b.waiting() > patience
	}
	return slowRest(read, b.layer.Size, b.now().Sub(f.began))
}

// has says whether there is a part to lay.
func (f *filling) has() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.parts) > 0
}

// begun lays what there is, and says so.
func (f *filling) begun() (state, message string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.parts) == 0:
		return nodeapi.Skipped, f.blob.pace() + ": going on in the background"
	case f.laid == nil:
		if err := f.lay(); err != nil {
			return nodeapi.Skipped, fmt.Sprintf("%v; going on in the background", err)
		}
	}
	return nodeapi.OK, f.says() + "; " + f.blob.pace() + ": the rest comes in the background"
}

// says is what lies where.
func (f *filling) says() string {
	return fmt.Sprintf("%s in %d entries lie over %s", mb(f.count.Bytes), f.count.Entries, strings.Join(f.laid, " "))
}

// run reads all of the bundle. What is damaged is never laid over the root.
func (f *filling) run() func() (string, string) {
	err := f.read()
	f.blob.drop()
	f.s.nfs.close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = f.lay()
	}
	if err != nil {
		err = f.leave(err)
		return func() (string, string) { return f.s.failed("precache", err) }
	}
	message := f.says()
	if f.count.Left > 0 {
		message += fmt.Sprintf("; %s did not fit into memory", mb(f.count.Left))
	}
	message, bytes := f.s.nfs.noted(message), f.count.Bytes
	return func() (string, string) { return f.s.done("precache", message, bytes) }
}

// leave gives back the memory of what cannot be laid. Where mounting failed half-way
// some folders lie already: what is verified stays.
func (f *filling) leave(err error) error {
	if f.laid != nil {
		if len(f.parts) < 2 {
			_ = os.RemoveAll(filepath.Join(f.dir, "rest"))
		}
		return fmt.Errorf("going on with the first part of the bundle: %w", err)
	}
	_ = f.s.system.Unmount(f.dir)
	return fmt.Errorf("going on without the bundle: %w", err)
}

// read reads the part that comes first, if there is one, and the rest.
func (f *filling) read() error {
	if first := f.blob.layer.First; first != nil {
		if err := f.part("first", io.LimitReader(f.blob, first.Size), first.Size, first.Digest); err != nil {
			return err
		}
	}
	return f.part("rest", f.blob, f.blob.layer.Size, f.blob.layer.Digest)
}

// part unpacks what the blob has up to an offset, where the digest of all before
// it is this one.
func (f *filling) part(name string, r io.Reader, end int64, digest string) error {
	dir := filepath.Join(f.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	left := f.limit - f.count.Bytes
	if f.count.Left > 0 {
		left = 0
	}
	count, err := unpack.Layer(r, unpack.Into{Dir: dir, Below: f.parts, Limit: max(left, 1), Overlay: true})
	if f.blob.read.Load() == end {
		if sum := f.blob.verify(digest); sum != nil {
			return sum // it says more than what unpacking stumbled over
		}
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parts = append(f.parts, dir)
	f.count = unpack.Count{Bytes: f.count.Bytes + count.Bytes, Left: f.count.Left + count.Left, Entries: f.count.Entries + count.Entries}
	return nil
}

// lay puts each folder of the parts over the image's. What is a mount of its own
// by now, such as /var, stays as it is. A folder that the bundle has whole is
// marked in the part in which its last file came: that part lies below the ones
// before it, and hides nothing of theirs.
func (f *filling) lay() error {
	names, err := f.folders()
	if err != nil {
		return err
	}
	laid := []string{}
	for _, name := range names {
		on := "/" + name
		if f.s.system.Mounted(on) {
			continue
		}
		if err := f.s.system.Overlay(append(f.lower(name), f.s.image(on)), on); err != nil {
			return fmt.Errorf("laying the bundle over %s: %w", on, err)
		}
		laid = append(laid, on)
	}
	f.laid = laid
	return nil
}

// folders are the names of the topmost folders in the parts.
func (f *filling) folders() ([]string, error) {
	var names []string
	for _, part := range f.parts {
		list, err := os.ReadDir(part)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			if e.IsDir() && !slices.Contains(names, e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// lower are the parts' folders of a name, the uppermost first.
func (f *filling) lower(name string) []string {
	var out []string
	for _, part := range f.parts {
		if info, err := os.Lstat(filepath.Join(part, name)); err == nil && info.IsDir() {
			out = append(out, filepath.Join(part, name))
		}
	}
	return out
}

// image is where the image's own folder can be read, under whatever lies over it.
func (s *session) image(path string) string {
	if image := filepath.Join(s.dir, "image"); s.system.Mounted(image) {
		return filepath.Join(image, path)
	}
	return path
}

package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"rhizome/serve/node/nodeapi"
)

// regional is a tree whose parts can be switched to a new state at once.
type regional interface {
	// newStage makes a place beside the tree for the commit of a lease; step is
	// told of each step.
	newStage(lease string, step func(string)) (regionStage, error)
	// finished is the commit of a lease that was carried out though the
	// server died before it could say so, or "".
	finished(lease string) (commit string)
	// settled forgets it, once the holder was told.
	settled(lease string)
}

// regionStage is where a commit is made ready. Nothing of it is seen before
// swap, and all of it after.
type regionStage interface {
	// file is where the changes are spooled.
	file() *os.File
	// build makes the new state of the units (see units).
	build(ctx context.Context, b stageInput) error
	// swap switches to it; nobody else uses the export meanwhile. An error
	// means that nothing happened.
	swap(lease, commit string) error
	// drop removes all that is left: what was not switched to, or the old.
	drop()
}

// stageInput is what a commit is made of.
type stageInput struct {
	changes []regionChange
	// by are the changes by path.
	by    map[string]*regionChange
	old   *regionList
	units []string
}

// commit is one commit on its way.
type commit struct {
	r      *Regions
	h      nodeapi.Holder
	l      lease
	id     string
	n      *Node
	at     []place
	x      *export
	stage  regionStage
	list   *regionList
	change []regionChange
}

// Commit writes the changes of a leased region back: all of them, or, where
// the region is not what was streamed any more, none; then they are kept aside,
// and the error is a *nodeapi.ConflictError that names them.
func (r *Regions) Commit(ctx context.Context, h nodeapi.Holder, id, commitID string, body io.Reader) (nodeapi.Committed, error) {
	release, err := r.begin(id)
	if err != nil {
		return nodeapi.Committed{}, err
	}
	defer release()
	l, n, at, err := r.snapshot(h, id)
	if err != nil {
		return nodeapi.Committed{}, err
	}
	if l.Mode != nodeapi.Write {
		return nodeapi.Committed{}, wrong("the lease %q is for reading", id)
	}
	x, err := r.v.use(n, at[0].spec)
	if err != nil {
		return nodeapi.Committed{}, err
	}
	tree := x.tree
	x.leave()
	if commitID != "" && l.Commit == commitID { // its answer was lost
		tree.settled(id)
		return nodeapi.Committed{Version: l.Version}, nil
	}
	c := &commit{r: r, h: h, l: l, id: commitID, n: n, at: at, x: x}
	if commitID != "" && tree.finished(id) == commitID {
		return c.settle(ctx, tree)
	}
	if c.stage, err = tree.newStage(id, r.v.config.step); err != nil {
		return nodeapi.Committed{}, full(err)
	}
	return c.run(ctx, body)
}

// begin keeps a second commit of the same lease off until release.
func (r *Regions) begin(id string) (release func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errElsewhere
	}
	if r.busy[id] {
		return nil, errors.New("a commit of this lease is going on: ask again")
	}
	if r.busy == nil {
		r.busy = map[string]bool{}
	}
	r.busy[id] = true
	r.commits.Add(1)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.busy, id)
		r.commits.Done()
	}, nil
}

// close waits for the commits that go on: what they made is theirs to take away, and
// must be gone before another server has the folders. Its new files may have the same
// numbers.
func (r *Regions) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.commits.Wait()
}

// committing tells whether any commit goes on.
func (r *Regions) committing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.busy) > 0
}

// full tells of a disk or a quota that is full by its own type.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &nodeapi.FullError{Err: fmt.Errorf("there is no room for the changes: %w", err)}
	}
	return err
}

// run takes the changes, makes the new state, and switches to it.
func (c *commit) run(ctx context.Context, body io.Reader) (done nodeapi.Committed, err error) {
	swapped := false
	defer func() {
		if !swapped {
			c.stage.drop()
		}
	}()
	if err := c.spool(body); err != nil {
		return done, full(err)
	}
	if c.list, err = c.r.list(ctx, c.n, c.at); err != nil {
		return done, err
	}
	c.r.v.config.step("spooled")
	if c.list.version() != c.l.Version {
		return done, c.keep("the region changed meanwhile")
	}
	by := byPath(c.change)
	if err := checkChanges(c.change, by, c.list, c.at, c.x.devices); err != nil {
		return done, err
	}
	err = c.stage.build(ctx, stageInput{c.change, by, c.list, units(c.change, c.list, c.at)})
	if gone(err) {
		return done, c.keep("the region changes while it is written back: " + err.Error())
	}
	if err != nil {
		return done, full(fmt.Errorf("making the new state: %w", err))
	}
	why, done, err := c.swap(ctx)
	if gone(err) {
		why = "the region changed meanwhile: " + err.Error()
	}
	if why != "" {
		return done, c.keep(why)
	}
	swapped = err == nil
	return done, full(err)
}

// gone tells of an error that comes of others who change the tree.
func gone(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.ENOTDIR)
}

// spool writes the changes beside the tree and reads them.
func (c *commit) spool(body io.Reader) error {
	f := c.stage.file()
	if _, err := io.Copy(f, &roomed{r: body, q: c.x.quota}); err != nil {
		return fmt.Errorf("taking the changes: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	var err error
	c.change, err = readChanges(f, c.at)
	return err
}

// roomed stops where a quota has no more room.
type roomed struct {
	r io.Reader
	q *quota
	n int64
}

func (r *roomed) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.n += int64(n)
	if full := r.q.room(r.n); full != nil {
		return 0, full
	}
	return n, err
}

// swap makes sure that the region and the lease are what they were, alone on
// the export, and switches. why says what they are otherwise.
func (c *commit) swap(ctx context.Context) (why string, done nodeapi.Committed, err error) {
	c.x.using.Lock()
	defer c.x.using.Unlock()
	if c.x.closed {
		return "", done, errElsewhere
	}
	now, err := c.relist(ctx)
	if err != nil {
		return "", done, err
	}
	if now.version() != c.l.Version {
		return "the region changed meanwhile", done, nil
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	t, l, err := c.r.mine(c.h, c.l.ID)
	if err != nil {
		return "", done, err
	}
	if other := t.clash(l.Regions, l.Mode, l.ID); l.Expired && other != nil {
		return fmt.Sprintf("the lease ended, and node %q has the region now", other.Node), done, nil
	}
	if len(c.change) > 0 {
		if err := c.stage.swap(c.l.ID, c.id); err != nil {
			return "", done, fmt.Errorf("switching to the new state: %w", err)
		}
	}
	done, err = c.note(ctx, t, l)
	c.r.v.config.step("noted")
	c.stage.drop()
	if err == nil {
		c.x.tree.settled(c.l.ID)
	}
	return "", done, err
}

// relist lists the region again; the export is held for writing.
func (c *commit) relist(ctx context.Context) (*regionList, error) {
	now := &regionList{alone: true}
	for _, p := range c.at {
		if err := now.add(ctx, c.x, p); err != nil {
			return nil, err
		}
	}
	return now, nil
}

// note writes down that the commit is done; r.mu is held, and the export held
// for writing.
func (c *commit) note(ctx context.Context, t *leases, l *lease) (nodeapi.Committed, error) {
	now, err := c.relist(context.WithoutCancel(ctx))
	if err != nil {
		return nodeapi.Committed{}, err
	}
	done := nodeapi.Committed{Version: now.version()}
	return done, t.change(l, func(l *lease) { l.Version, l.Commit = done.Version, c.id })
}

// settle notes a commit that was carried out before the server died.
func (c *commit) settle(ctx context.Context, tree regional) (done nodeapi.Committed, err error) {
	c.x.using.Lock()
	defer c.x.using.Unlock()
	if c.x.closed {
		return done, errElsewhere
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	t, l, err := c.r.mine(c.h, c.l.ID)
	if err != nil {
		return done, err
	}
	if done, err = c.note(ctx, t, l); err == nil {
		tree.settled(l.ID)
	}
	return done, err
}

// keptFolder is where changes are kept that could not be written back, in the
// root of their export.
const keptFolder = ".kept"

// keep puts the changes aside and gives the error that names them.
func (c *commit) keep(why string) error {
	at := c.r.v.config.Now().UTC().Format("20060102T150405Z")
	name := fmt.Sprintf("%s-%s-%s-%.6s.tar", path.Base(c.at[0].node), at, c.n.Name, c.l.ID)
	shown := path.Join(c.at[0].mount, keptFolder, name)
	if err := c.store(name); err != nil {
		return full(fmt.Errorf("%s, and the changes could not be kept as %q: %w", why, shown, err))
	}
	return &nodeapi.ConflictError{Conflict: nodeapi.Conflict{Kept: shown,
		Error: fmt.Sprintf("%s: nothing was overwritten; the changes (%s) are kept in %s", why, describe(c.change), shown)}}
}

// store copies the spooled changes into the export, for root alone.
func (c *commit) store(name string) error {
	if !c.x.enter() {
		return errElsewhere
	}
	defer c.x.leave()
	c.x.names.Lock()
	defer c.x.names.Unlock()
	root, err := c.x.tree.root()
	if err != nil {
		return err
	}
	defer root.close()
	dir, err := root.lookup(keptFolder)
	if errors.Is(err, syscall.ENOENT) {
		dir, err = root.create(keptFolder, &newObject{kind: kindDir, mode: 0o700})
	}
	if err != nil {
		return err
	}
	defer dir.close()
	f, err := dir.create(name, &newObject{kind: kindRegular, mode: 0o600})
	if err != nil {
		return err
	}
	defer f.close()
	if err := copyInto(f, c.stage.file(), c.x.quota); err != nil {
		return errors.Join(err, dir.remove(name, false))
	}
	return errors.Join(f.sync(), dir.sync(), root.sync())
}

func copyInto(o object, from *os.File, q *quota) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		n, err := from.ReadAt(buf, off)
		if n > 0 {
			if full := q.room(int64(n)); full != nil {
				return full
			}
			if err := o.writeAt(buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

package early

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"rhizome/cmd/rhizome-node/internal/unpack"
	"rhizome/serve/node/nodeapi"
)

// fill reads the bundle into dir and lays it over the root. The script has its
// answer when that is done, or at once when the link turns out to be slow: then
// the rest is read when userland is up, so that no boot is later for it.
func (s *session) fill(dir string) {
	b, limit, err := s.beginFill(dir)
	if err != nil {
		s.say(s.failed("precache", err))
		return
	}
	if b == nil {
		return
	}
	result := make(chan func() (string, string), 1)
	s.background.Go(func() { result <- s.finishFill(b, dir, limit) })
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case done := <-result:
			s.say(done())
			return
		case <-ticks.C:
			if slow(b.read.Load(), b.layer.Size, b.waited()) {
				s.later(b, result)
				return
			}
		}
	}
}

// later lets the script go on; what comes of the fill goes to the console and
// the server.
func (s *session) later(b *blob, result chan func() (string, string)) {
	hold := s.untilUp
	b.hold.Store(&hold)
	message := fmt.Sprintf("the link is slow (%s in %.1f s): going on in the background", mb(b.read.Load()), b.waited().Seconds())
	s.tell("precache", nodeapi.Skipped, message, b.read.Load())
	s.say("later", message)
	s.background.Go(func() {
		state, message := (<-result)()
		fmt.Fprintf(s.console, "rhizome-early: precache: %s: %s\n", state, message)
	})
}

// upLimit is how long a fill waits for userland.
const upLimit = 5 * time.Minute

// untilUp waits until "rhizome-node up" was run.
func (s *session) untilUp() {
	for end := time.Now().Add(upLimit); time.Now().Before(end); {
		if _, err := os.Stat(filepath.Join(s.dir, upFile)); err == nil {
			return
		}
		if s.sleep(s.ctx, 500*time.Millisecond) != nil {
			return
		}
	}
}

// beginFill looks at memory first. Without a bundle or memory it answers by
// itself, and b is nil.
func (s *session) beginFill(dir string) (b *blob, limit int64, err error) {
	switch {
	case s.server == nil || s.plan.Node == "":
		return nil, 0, errNoPlan
	case s.plan.Bundle == nil:
		s.skip("the image has no bundle")
		return nil, 0, nil
	}
	total, free, err := s.system.Memory()
	if err != nil {
		return nil, 0, err
	}
	l := *s.plan.Bundle
	if limit = room(total, free, l.Uncompressed); limit == 0 {
		s.skip(fmt.Sprintf("%s of memory are free, too little for a bundle of %s", mb(free), mb(l.Uncompressed)))
		return nil, 0, nil
	}
	// Small files take a whole page each; the limit is on their bodies.
	if err := s.system.Tmpfs(dir, limit+limit/2+leastBundle); err != nil {
		return nil, 0, fmt.Errorf("mounting a memory file system: %w", err)
	}
	return s.blob(l), limit, nil
}

func (s *session) skip(message string) {
	s.tell("precache", nodeapi.Skipped, message, 0)
	s.say(nodeapi.Skipped, message)
}

// finishFill reads all of the bundle. What is damaged is never laid over the
// root.
func (s *session) finishFill(b *blob, dir string, limit int64) func() (string, string) {
	count, err := unpack.Layer(b, unpack.Into{Dir: dir, Limit: limit, Overlay: true})
	b.drop()
	s.nfs.close()
	if sum := b.verify(); sum != nil && b.read.Load() == b.layer.Size {
		err = sum // it says more than what unpacking stumbled over
	}
	var laid []string
	if err == nil {
		laid, err = s.lay(dir)
	}
	if err != nil {
		_ = s.system.Unmount(dir)
		return func() (string, string) {
			return s.failed("precache", fmt.Errorf("going on without the bundle: %w", err))
		}
	}
	message := fmt.Sprintf("%s in %d entries lie over %s", mb(count.Bytes), count.Entries, strings.Join(laid, " "))
	if count.Left > 0 {
		message += fmt.Sprintf("; %s did not fit into memory", mb(count.Left))
	}
	message = s.nfs.noted(message)
	return func() (string, string) { return s.done("precache", message, count.Bytes) }
}

// lay puts each folder of the bundle over the root's. What is a mount of its
// own by now, such as /var, stays as it is.
func (s *session) lay(dir string) (laid []string, err error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	for _, e := range list {
		on := "/" + e.Name()
		if !e.IsDir() || s.system.Mounted(on) {
			continue
		}
		if err := s.system.Overlay([]string{filepath.Join(dir, e.Name()), on}, on); err != nil {
			return laid, fmt.Errorf("laying the bundle over %s: %w", on, err)
		}
		laid = append(laid, on)
	}
	return laid, nil
}

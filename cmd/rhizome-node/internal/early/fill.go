package early

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"rhizome/serve/node/nodeapi"
)

// fill reads the bundle into dir and lays it over the root. The script has its
// answer when that is done, or earlier when the link turns out to be slow: when
// the part is laid that every boot reads anyway, if the bundle has one. The rest
// is read when userland is up, so that no boot is later for it.
func (s *session) fill(dir string) {
	l, limit, err := s.beginFill(func(l nodeapi.Layer) int64 { return l.Uncompressed })
	if l == nil {
		s.notBegun(err)
		return
	}
	// Small files take a whole page each; the limit is on their bodies.
	if err := s.system.Tmpfs(dir, limit+limit/2+leastBundle); err != nil {
		s.notBegun(fmt.Errorf("mounting a memory file system: %w", err))
		return
	}
	f := &filling{s: s, blob: s.blob(*l), dir: dir, limit: limit}
	f.began = f.blob.now()
	s.patiently(f.blob, f, func(state, message string) {
		fmt.Fprintf(s.console, "rhizome-early: precache: %s: %s\n", state, message)
	})
}

// bundleWork is what becomes of a bundle's blob: run does all of it, slow says
// whether the boot is to go on meanwhile, and begun what there is for it by then.
type bundleWork interface {
	run() func() (state, message string)
	slow() bool
	begun() (state, message string)
}

// patiently has the work done, and answers what came of it. Where the link is slow
// the answer is "later", and late hears the rest.
func (s *session) patiently(b *blob, w bundleWork, late func(state, message string)) {
	result := make(chan func() (string, string), 1)
	s.background.Go(func() { result <- w.run() })
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case done := <-result:
			s.say(done())
			return
		case <-ticks.C:
			if w.slow() {
				s.later(b, w)
				s.background.Go(func() { late((<-result)()) })
				return
			}
		}
	}
}

// later lets the script go on: the rest is read when userland is up.
func (s *session) later(b *blob, w bundleWork) {
	hold := func() {
		s.untilUp()
		if err := s.system.Behind(); err != nil {
			fmt.Fprintf(s.console, "rhizome-early: precache: %v\n", err)
		}
	}
	b.hold.Store(&hold)
	state, message := w.begun()
	s.tell("precache", state, message, b.read.Load())
	s.say("later", message)
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

// beginFill gives the bundle, and how many bytes of what it needs there is memory
// for. It is nil without a bundle or memory, which is then told, or with an error.
func (s *session) beginFill(need func(nodeapi.Layer) int64) (l *nodeapi.Layer, limit int64, err error) {
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
	all := need(*s.plan.Bundle)
	if limit = room(total, free, all); limit == 0 {
		s.skip(fmt.Sprintf("%s of memory are free, too little for a bundle of %s", mb(free), mb(all)))
		return nil, 0, nil
	}
	return s.plan.Bundle, limit, nil
}

// notBegun answers where there is nothing to read; what was skipped has its answer.
func (s *session) notBegun(err error) {
	if err != nil {
		s.say(s.failed("precache", err))
	}
}

func (s *session) skip(message string) {
	s.tell("precache", nodeapi.Skipped, message, 0)
	s.say(nodeapi.Skipped, message)
}

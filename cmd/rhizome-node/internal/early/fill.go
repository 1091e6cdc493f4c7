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
	f, err := s.beginFill(dir)
	if err != nil {
		s.say(s.failed("precache", err))
		return
	}
	if f == nil {
		return
	}
	result := make(chan func() (string, string), 1)
	s.background.Go(func() { result <- f.run() })
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case done := <-result:
			s.say(done())
			return
		case <-ticks.C:
			if f.slow() {
				s.later(f, result)
				return
			}
		}
	}
}

// later lets the script go on; what comes of the fill goes to the console and
// the server.
func (s *session) later(f *filling, result chan func() (string, string)) {
	hold := func() {
		s.untilUp()
		if err := s.system.Behind(); err != nil {
			fmt.Fprintf(s.console, "rhizome-early: precache: %v\n", err)
		}
	}
	f.blob.hold.Store(&hold)
	state, message := f.begun()
	s.tell("precache", state, message, f.blob.read.Load())
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
// itself, and f is nil.
func (s *session) beginFill(dir string) (f *filling, err error) {
	switch {
	case s.server == nil || s.plan.Node == "":
		return nil, errNoPlan
	case s.plan.Bundle == nil:
		s.skip("the image has no bundle")
		return nil, nil
	}
	total, free, err := s.system.Memory()
	if err != nil {
		return nil, err
	}
	l := *s.plan.Bundle
	limit := room(total, free, l.Uncompressed)
	if limit == 0 {
		s.skip(fmt.Sprintf("%s of memory are free, too little for a bundle of %s", mb(free), mb(l.Uncompressed)))
		return nil, nil
	}
	// Small files take a whole page each; the limit is on their bodies.
	if err := s.system.Tmpfs(dir, limit+limit/2+leastBundle); err != nil {
		return nil, fmt.Errorf("mounting a memory file system: %w", err)
	}
	f = &filling{s: s, blob: s.blob(l), dir: dir, limit: limit}
	f.began = f.blob.now()
	return f, nil
}

func (s *session) skip(message string) {
	s.tell("precache", nodeapi.Skipped, message, 0)
	s.say(nodeapi.Skipped, message)
}

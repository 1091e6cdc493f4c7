package volume

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// Whoever waits gets an fsync that began after it asked, and hears of its
// failure; those who wait together share one.
func TestWaitersShareAnFsyncThatBeganAfterThem(t *testing.T) {
	var g syncGroup
	var runs atomic.Int64
	entered, leave := make(chan struct{}), make(chan struct{})
	fsync := func() error {
		if runs.Add(1) == 1 {
			close(entered)
			<-leave
			return nil
		}
		return errors.New("the disk is broken")
	}
	first := make(chan error, 1)
	go func() { first <- g.wait(fsync) }()
	<-entered
	var wg sync.WaitGroup
	var failures, waiting atomic.Int64
	for range 16 {
		wg.Go(func() {
			waiting.Add(1)
			if g.wait(fsync) != nil {
				failures.Add(1)
			}
		})
	}
	for waiting.Load() < 16 {
	}
	close(leave)
	wg.Wait()
	if err := <-first; err != nil {
		t.Errorf("the first fsync, which went well, told %v", err)
	}
	if failures.Load() != 16 {
		t.Errorf("%d of 16 heard that their fsync failed", failures.Load())
	}
	if n := runs.Load(); n < 2 || n > 17 {
		t.Errorf("%d fsyncs for 17 waiters", n)
	}
}

package volume

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"rhizome/serve/rpc"
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

// held keeps an fsync's error back until it is let go.
type held struct {
	object
	failed, letGo chan struct{}
}

func (h *held) sync() error {
	err := h.object.sync()
	if err != nil {
		close(h.failed)
		<-h.letGo
	}
	return err
}

// After an fsync that failed the kernel has nothing left to write, and the next goes
// well. Whoever asks for that must be told another verifier, or it would forget bytes
// that are nowhere; also where the call that failed has not come so far as to say so.
func TestNoCommitSucceedsWithTheVerifierOfWhatWasLost(t *testing.T) {
	v := New(Config{})
	o, err := openOverlay(overlayConfig{dir: t.TempDir(), now: v.moment, lost: v.life.renew})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	f, err := o.object(rootID).create("f", &newObject{kind: kindRegular, mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.writeAt([]byte("unstable"), 0); err != nil {
		t.Fatal(err)
	}
	a, err := f.attr()
	if err != nil {
		t.Fatal(err)
	}
	commits := func(obj object) (st status, verf uint64) {
		var out rpc.Reply
		r := request{v: v, x: &export{}, call: &rpc.Call{Procedure: procCommit}, args: rpc.NewDecoder(make([]byte, 12)), out: &out, obj: obj, attr: a}
		r.commit()
		reply := out.Bytes()
		return status(binary.BigEndian.Uint32(reply)), binary.BigEndian.Uint64(reply[len(reply)-8:])
	}
	wrote := v.life.v.Load()

	body := o.bodies.files[bodyName(f.(*overlayObject).n)]
	good := body.data
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	body.data = pipe[1] // which has no fsync
	first := &held{f, make(chan struct{}), make(chan struct{})}
	done := make(chan status)
	go func() {
		st, _ := commits(first)
		done <- st
	}()
	<-first.failed
	body.data = good
	if st, verf := commits(f); st != statusOK || verf == wrote {
		t.Errorf("the next COMMIT gives %v, and the verifier is another: %t", st, verf != wrote)
	}
	close(first.letGo)
	if st := <-done; st == statusOK {
		t.Error("the COMMIT whose fsync failed was answered with success")
	}
}

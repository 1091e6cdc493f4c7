package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// openRecords opens an overlay without an image in a folder.
func openRecords(t *testing.T, dir string) *overlay {
	t.Helper()
	o, err := openOverlay(overlayConfig{dir: dir, now: func() moment { return moment{Sec: 1} }})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A journal is replaced by a shorter one while another thread takes the last
// descriptor and gives it back. Whatever fails of that, each change that was on the disk
// according to sync is in the file that the next start reads.
func TestNoChangeIsLostWithAJournalThatIsReplaced(t *testing.T) {
	dir := fastDir(t)
	o := openRecords(t, dir)
	restore := fewDescriptors(t, 5)
	last := lastDescriptor(t)
	stop := make(chan struct{})
	var hog sync.WaitGroup
	hog.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Microsecond):
			}
			last.Close()
			time.Sleep(20 * time.Microsecond)
			for f, err := os.Open(os.DevNull); ; f, err = os.Open(os.DevNull) {
				if err == nil {
					last = f
					break
				}
			}
		}
	})
	failures, told, lost := 0, 0, 0
	for i := range 300 {
		o.mu.Lock()
		if o.journal.rewrite(o.records) != nil {
			failures++
		}
		o.mu.Unlock()
		name := fmt.Sprint(i)
		if _, err := o.object(rootID).create(name, &newObject{kind: kindDir, mode: 0o700}); err != nil {
			t.Fatal(err)
		}
		if o.journal.sync(o.journal.size.Load()) != nil {
			continue
		}
		told++
		r, err := readRecords(dir)
		for spent(err) {
			r, err = readRecords(dir)
		}
		if _, there := r.names[rootID][name]; !there {
			lost++
		}
	}
	close(stop)
	hog.Wait()
	restore()
	if lost > 0 || failures == 0 || told == 0 {
		t.Errorf("%d of %d changes that were on the disk are lost; %d journals could not be replaced", lost, told, failures)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
}

// lastDescriptor takes all descriptors that the process may have, and gives the
// last. The others go with the test.
func lastDescriptor(t *testing.T) (last *os.File) {
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return last
		}
		last = f
		t.Cleanup(func() { f.Close() })
	}
}

// A line that went bad, with whole ones behind it, is no line that a crash cut: the
// changes behind it were acknowledged. They and the bodies they name stay until
// somebody decides.
func TestADamagedJournalTakesNothingAway(t *testing.T) {
	dir := fastDir(t)
	o := openRecords(t, dir)
	for i := range 10 {
		f, err := o.object(rootID).create(fmt.Sprint(i), &newObject{kind: kindRegular, mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.writeAt([]byte("body"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	good := spoilJournal(t, dir, func(journal []byte) { journal[len(journal)/2] ^= 1 })
	if _, err := openOverlay(overlayConfig{dir: dir, now: o.now}); err == nil || !strings.Contains(err.Error(), "truncate -s") {
		t.Errorf("a damaged journal was opened, or it is not said what to do: %v", err)
	}
	if bodies, _ := os.ReadDir(filepath.Join(dir, "bodies")); len(bodies) != 10 {
		t.Errorf("%d of 10 bodies are left", len(bodies))
	}
	if err := os.WriteFile(filepath.Join(dir, journalName), good, 0o600); err != nil {
		t.Fatal(err)
	}
	o = openRecords(t, dir)
	defer o.close()
	if n := len(o.names[rootID]); n != 10 {
		t.Errorf("with the good journal back, %d of 10 files are there", n)
	}
}

// spoilJournal changes a folder's journal, and gives what it was.
func spoilJournal(t *testing.T, dir string, as func([]byte)) (good []byte) {
	t.Helper()
	path := filepath.Join(dir, journalName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	as(bad)
	if err := os.WriteFile(path, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	return good
}

// Power fails while pages of the journal are on their way to the disk, and a later one
// is there first: nobody was told of either. The node goes on with what was before.
func TestAPageThatNeverCameToTheDiskIsNoDamage(t *testing.T) {
	dir := fastDir(t)
	o := openRecords(t, dir)
	var ends []int64
	for i := range 10 {
		if _, err := o.object(rootID).create(fmt.Sprint(i), &newObject{kind: kindDir, mode: 0o700}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, o.journal.size.Load())
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	spoilJournal(t, dir, func(journal []byte) { clear(journal[ends[5]-10 : ends[6]+10]) })
	o = openRecords(t, dir)
	defer o.close()
	if n := len(o.names[rootID]); n != 5 {
		t.Errorf("%d folders are there, want the 5 before the zeros", n)
	}
}

// A snapshot that cannot be written, as on a full disk, is not tried again with every
// change: each try costs as much as all records do. What a crash left of one goes at
// the next start.
func TestAJournalThatCannotBeShortenedIsLeftInPeace(t *testing.T) {
	dir := fastDir(t)
	o := openRecords(t, dir)
	root := o.object(rootID)
	o.journal.most = 4 << 10 // enough for a change, and not for all
	name := strings.Repeat("n", 200)
	for i := 0; o.journal.size.Load() < slack+64<<10; i++ {
		if _, err := root.create(fmt.Sprint(name, i), &newObject{kind: kindDir, mode: 0o700}); err != nil {
			t.Fatal(err)
		}
	}
	allocations := testing.AllocsPerRun(20, func() {
		if err := root.comeAndGo(name); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 1000 {
		t.Errorf("a change makes %.0f allocations: all records are written each time", allocations)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "write-1.tmp")
	if err := os.WriteFile(left, []byte("half a snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	o = openRecords(t, dir)
	defer o.close()
	if _, err := os.Stat(left); err == nil {
		t.Error("half a snapshot of a server that died stays for ever")
	}
}

// comeAndGo makes a directory and removes it.
func (x *overlayObject) comeAndGo(name string) error {
	if _, err := x.create(name, &newObject{kind: kindDir, mode: 0o700}); err != nil {
		return err
	}
	return x.remove(name, true)
}

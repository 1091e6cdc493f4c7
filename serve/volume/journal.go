package volume

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"rhizome/registry/durable"
)

// journal is the file of an overlay's transactions: one on a line, its CRC-32C
// in hexadecimal before its JSON. A line that a crash cut, and what follows,
// never was: nobody was told of it.
type journal struct {
	path string
	file *os.File
	// most is the longest line in bytes: maxLine.
	most int
	// size is where the next line goes, in bytes; live what a snapshot took, and
	// later the size at which one is tried again after one that failed.
	size        atomic.Int64
	live, later int64

	// synced is how far the file is known to be on the disk, and renamed says that
	// its name may not be; mu is held while they get there. failed is set when that
	// can be known no more.
	mu      sync.Mutex
	synced  int64
	renamed bool
	failed  atomic.Pointer[error]
}

const journalName = "journal"

// maxLine is the longest transaction in bytes, with its end: some 500,000
// changed files of a region. What is longer is not written, since it could not be
// read.
const maxLine = 256 << 20

// errLong is a transaction beyond maxLine.
var errLong = fmt.Errorf("more names change at once than the journal takes, which is %d MiB of records: write back less in one go", maxLine>>20)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeLine(tx []change) ([]byte, error) {
	data, err := json.Marshal(tx)
	if err != nil {
		return nil, fmt.Errorf("writing down a change: %w", err)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(data, castagnoli), data), nil
}

// encode is encodeLine for a line that can be read again.
func (j *journal) encode(tx []change) ([]byte, error) {
	line, err := encodeLine(tx)
	if err == nil && len(line) > j.most {
		err = errLong
	}
	return line, err
}

// decodeLine reads a line without its end; ok is false for one that was cut or
// is damaged.
func decodeLine(line []byte) (tx []change, ok bool) {
	sum, data, found := bytes.Cut(line, []byte{' '})
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !found || err != nil || len(sum) != 8 || uint32(want) != crc32.Checksum(data, castagnoli) {
		return nil, false
	}
	return tx, json.Unmarshal(data, &tx) == nil
}

// replayJournal applies all whole lines, and tells where they end.
func replayJournal(r io.Reader, into *records) (size int64, err error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, err
		}
		tx, ok := decodeLine(line)
		if !ok {
			return size, nil
		}
		into.apply(tx)
		size += int64(len(line)) + 1
	}
}

// readLine gives a line without its end; io.EOF for one that has none.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxLine:
			return nil, io.EOF
		}
	}
}

// readRecords reads the records of a folder, and changes nothing.
func readRecords(dir string) (*records, error) {
	r := newRecords()
	f, err := os.Open(filepath.Join(dir, journalName))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, err = replayJournal(f, r)
	return r, err
}

// openJournal reads a folder's journal and makes ready to go on behind its last
// whole line. It asks nothing of the disk where a journal is there already: the
// disk may be full, and what the node has must be served still.
func openJournal(dir string) (*journal, *records, error) {
	j, r := &journal{path: filepath.Join(dir, journalName), most: maxLine}, newRecords()
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return j, r, j.rewrite(r)
	}
	if err != nil {
		return nil, nil, err
	}
	size, err := replayJournal(f, r)
	if err == nil {
		err = j.cut(f, size)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	j.file = f
	j.size.Store(size)
	j.shorten(r) // with no snapshot's size known, beyond slack
	return j, r, nil
}

// cut takes off what follows the last whole line: a line that a crash cut is the
// last, or one of the last that nobody was told of. Where whole lines follow one that
// is all there, the disk has damaged what was kept, and nothing more is given up by
// itself.
func (j *journal) cut(f *os.File, size int64) error {
	damaged, err := linesBehind(io.NewSectionReader(f, size, 1<<62))
	if err != nil {
		return err
	}
	if damaged {
		return fmt.Errorf("the journal %q is damaged at byte %d, and whole changes follow: put a good copy of it in its place, or give up what follows with `truncate -s %d`", j.path, size, size)
	}
	return f.Truncate(size)
}

// linesBehind tells whether a whole line follows the first, which is none. Zeros in
// that are pages that never came to the disk, though later ones did: then no sync
// had ended, and nobody was told of what follows. JSON has none.
func linesBehind(r io.Reader) (bool, error) {
	lines := bufio.NewReaderSize(r, 1<<16)
	for first := true; ; first = false {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if first && bytes.IndexByte(line, 0) >= 0 {
			return false, nil
		}
		if _, ok := decodeLine(line); ok && !first {
			return true, nil
		}
	}
}

// rewrite replaces the journal by a snapshot, in one step. From then on the
// snapshot's file is written to, whatever else fails: a line in the file that was
// replaced would be lost. sync makes the new file's name last.
func (j *journal) rewrite(r *records) error {
	line, err := j.encode(r.snapshot())
	if err != nil {
		return err
	}
	f, err := newFile(filepath.Dir(j.path), line)
	if err != nil {
		return durable.Hint(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := os.Rename(f.Name(), j.path); err != nil {
		return errors.Join(err, durable.Discard(durable.OS{}, f))
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.live, j.synced, j.renamed = f, int64(len(line)), int64(len(line)), true
	j.size.Store(j.live)
	return nil
}

// newFiles are the names of files that newFile makes.
const newFiles = "write-*.tmp"

// newFile makes a file in a folder, under a name of its own, that has data and is
// on the disk. It is left open.
func newFile(dir string, data []byte) (*os.File, error) {
	f, err := os.CreateTemp(dir, newFiles)
	if err != nil {
		return nil, err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, errors.Join(err, durable.Discard(durable.OS{}, f))
	}
	return f, nil
}

// slack is how many bytes a journal may have beyond three times its snapshot.
const slack = 4 << 20

// shorten replaces a journal that is overgrown. Where that fails, the longer one
// goes on being good; it is tried again when that is longer by slack and not with
// each change, since it costs as much as all records.
func (j *journal) shorten(r *records) {
	size := j.size.Load()
	if size > max(3*j.live+slack, j.later) && j.rewrite(r) != nil {
		j.later = size + slack
	}
}

// append adds a transaction; sync makes it last. A line that does not fit the
// disk is taken back.
func (j *journal) append(tx []change) error {
	line, err := j.encode(tx)
	if err != nil {
		return err
	}
	if failed := j.failed.Load(); failed != nil {
		return *failed
	}
	if _, err := j.file.WriteAt(line, j.size.Load()); err != nil {
		if cut := j.file.Truncate(j.size.Load()); cut != nil {
			return errors.Join(err, j.fail(cut))
		}
		return err
	}
	j.size.Add(int64(len(line)))
	return nil
}

// fail ends the journal's life: after a failed fsync the kernel may have
// forgotten what it could not write, and nothing can be promised any more.
func (j *journal) fail(err error) error {
	err = fmt.Errorf("the journal of changes is broken until the server is started again: %w", err)
	j.failed.Store(&err)
	return err
}

// sync waits until the file is on the disk up to a size. Those who come while
// another waits are served by one fsync together.
func (j *journal) sync(upto int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if failed := j.failed.Load(); failed != nil {
		return *failed
	}
	if j.renamed {
		if err := (durable.OS{}).SyncDir(filepath.Dir(j.path)); err != nil {
			return err
		}
		j.renamed = false
	}
	if j.synced >= upto {
		return nil
	}
	size := j.size.Load()
	if err := j.file.Sync(); err != nil {
		return j.fail(err)
	}
	j.synced = size
	return nil
}

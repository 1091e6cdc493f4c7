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
	// size is where the next line goes, in bytes; live what a snapshot took.
	size atomic.Int64
	live int64

	// synced is how far the file is known to be on the disk; mu is held while
	// it gets there. failed is set when that can be known no more.
	mu     sync.Mutex
	synced int64
	failed atomic.Pointer[error]
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
		err = f.Truncate(size)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	j.file = f
	j.size.Store(size)
	if j.overgrown() { // with no snapshot's size known, beyond slack
		// Where this fails, the longer journal goes on being good.
		_ = j.rewrite(r)
	}
	return j, r, nil
}

// rewrite replaces the journal by a snapshot, in one step.
func (j *journal) rewrite(r *records) error {
	line, err := j.encode(r.snapshot())
	if err != nil {
		return err
	}
	if err := durable.WriteBytes(durable.OS{}, "", j.path, 0o600, line); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the journal again: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.live, j.synced = f, int64(len(line)), int64(len(line))
	j.size.Store(j.live)
	return nil
}

// slack is how many bytes a journal may have beyond three times its snapshot.
const slack = 4 << 20

func (j *journal) overgrown() bool { return j.size.Load() > 3*j.live+slack }

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

package volume

import (
	"container/list"
	"sync"
	"syscall"
)

// fileCache keeps files open between calls: a client that streams writes names
// the same file a thousand times. A file in use is never closed; of the others
// the ones used last stay.
type fileCache struct {
	most int
	// lost is told of each fsync that failed; nil is nobody.
	lost func()

	mu    sync.Mutex
	files map[string]*openFile
	idle  list.List // of *openFile, the longest idle first
}

// openFile is a file of a cache.
type openFile struct {
	// path is an O_PATH descriptor, or -1.
	path int

	mu   sync.Mutex
	data int // to read and write by, or -1
	// syncs are the file's fsyncs.
	syncs syncGroup

	// The cache's: who uses it, where it stands among the idle ones, and
	// whether it is to be closed when nobody does.
	uses   int
	idle   *list.Element
	name   string
	doomed bool
}

func newFileCache(most int, lost func()) *fileCache {
	return &fileCache{most: most, lost: lost, files: map[string]*openFile{}}
}

// told passes on how an fsync of one of the files went. It belongs into what a
// syncGroup runs: whoever waits there for the next fsync, which finds nothing left
// to write, must see what the one that failed has changed.
func (c *fileCache) told(err error) error {
	if err != nil && c.lost != nil {
		c.lost()
	}
	return err
}

// get gives an open file, by open where it is not in the cache. put must
// follow.
func (c *fileCache) get(name string, open func() (*openFile, error)) (*openFile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[name]
	if f == nil {
		var err error
		if f, err = open(); err != nil {
			return nil, err
		}
		f.name = name
		c.files[name] = f
	}
	if f.idle != nil {
		c.idle.Remove(f.idle)
		f.idle = nil
	}
	f.uses++
	return f, nil
}

// put ends a use.
func (c *fileCache) put(name string, f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.uses--; f.uses > 0 {
		return
	}
	if f.doomed {
		f.close()
		return
	}
	f.idle = c.idle.PushBack(f)
	for c.idle.Len() > c.most {
		oldest := c.idle.Remove(c.idle.Front()).(*openFile)
		delete(c.files, oldest.name)
		oldest.close()
	}
}

// forget closes a file as soon as nobody uses it; it is opened anew next time.
func (c *fileCache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[name]
	if f == nil {
		return
	}
	delete(c.files, name)
	f.doomed = true
	if f.idle != nil {
		c.idle.Remove(f.idle)
		f.close()
	}
}

// forgetIdle closes the files that nobody uses: those whose last name is gone
// would keep their blocks.
func (c *fileCache) forgetIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.idle.Front(); e != nil; e = c.idle.Front() {
		f := c.idle.Remove(e).(*openFile)
		f.idle = nil
		delete(c.files, f.name)
		f.close()
	}
}

// clear closes all files; none is in use.
func (c *fileCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.files {
		f.close()
	}
	clear(c.files)
	c.idle.Init()
}

// open gives the descriptor to read and write by, which how opens once.
func (f *openFile) open(how func() (int, error)) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.data >= 0 {
		return f.data, nil
	}
	fd, err := how()
	if err == nil {
		f.data = fd
	}
	return fd, err
}

// opened is the descriptor to read and write by, or -1 where there is none yet.
func (f *openFile) opened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.data
}

func (f *openFile) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range []int{f.path, f.data} {
		if fd >= 0 {
			syscall.Close(fd)
		}
	}
	f.path, f.data = -1, -1
}

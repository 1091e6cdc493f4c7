package tool

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// KeptLines is how many of the last lines of output an Error carries.
const KeptLines = 30

// maxLine cuts a line that never ends, in bytes.
const maxLine = 4 << 10

// keeper cuts a program's output into lines, hands them on and keeps the last
// ones. Both streams of a program may write to it.
type keeper struct {
	mu   sync.Mutex
	log  io.Writer
	line func(string)
	rest []byte
	last []string
}

// Write never fails: a full disk must not stop a program through its log
// before it has said so itself.
func (k *keeper) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.log != nil {
		_, _ = k.log.Write(p)
	}
	k.rest = append(k.rest, p...)
	for {
		i, next := bytes.IndexAny(k.rest, "\r\n"), 0
		switch {
		case i >= 0:
			next = i + 1
		case len(k.rest) > maxLine:
			i, next = maxLine, maxLine
		default:
			return len(p), nil
		}
		k.take(string(k.rest[:i]))
		k.rest = k.rest[next:]
	}
}

func (k *keeper) take(line string) {
	line = strings.TrimSpace(line)
	if line == "" {
		return
	}
	if len(k.last) == KeptLines {
		k.last = k.last[1:]
	}
	k.last = append(k.last, line)
	if k.line != nil {
		k.line(line)
	}
}

func (k *keeper) flush() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take(string(k.rest))
	k.rest = nil
}

func (k *keeper) tail() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.last...)
}

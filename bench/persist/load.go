package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"rhizome/serve/rpc"
	"rhizome/serve/rpc/rpctest"
)

// load writes to one file, as fast as the server answers.
type load struct {
	nfs, mount, export      string
	size, depth, batch, pid int
	lasts                   time.Duration

	c      *rpctest.Client
	handle []byte
}

// fileSize is how far the file goes before it is written again from its start.
const fileSize = 64 << 20

func (l *load) run() error {
	if err := l.open(); err != nil {
		return err
	}
	begin, busy := time.Now(), cpu(l.pid)
	calls, written, err := l.write(begin.Add(l.lasts))
	if err != nil {
		return err
	}
	took, spent := time.Since(begin).Seconds(), cpu(l.pid)-busy
	fmt.Printf("%d %.3f %.0f %.1f %.1f\n", calls, took, float64(calls)/took, float64(written)/took/1e6, spent/float64(calls)*1e6)
	return nil
}

// dial connects from a reserved port, as root's calls must.
func dial(to string) (*rpctest.Client, error) {
	var last error
	for range 200 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 601 + rand.IntN(400)}}
		nc, err := d.Dial("tcp4", to)
		if err == nil {
			return rpctest.NewClient(nc), nil
		}
		last = err
	}
	return nil, last
}

func (l *load) open() error {
	m, err := dial(l.mount)
	if err != nil {
		return err
	}
	defer m.Close()
	r, err := m.Call(100005, 3, 1, rpctest.Opaque([]byte(l.export)))
	if err != nil {
		return err
	}
	d := rpc.NewDecoder(r.Body)
	if st := d.Uint32(); st != 0 {
		return fmt.Errorf("mounting %q: status %d", l.export, st)
	}
	root := bytes.Clone(d.Opaque(64))
	if l.c, err = dial(l.nfs); err != nil {
		return err
	}
	return l.create(root)
}

func (l *load) create(root []byte) error {
	args := append(rpctest.Opaque(root), rpctest.Opaque([]byte("file"))...)
	args = append(args, rpctest.Words(0, 1, 0o644, 0, 0, 0, 0, 0)...)
	r, err := l.c.Call(100003, 3, 8, args)
	if err != nil {
		return err
	}
	d := rpc.NewDecoder(r.Body)
	if st := d.Uint32(); st != 0 || !d.Bool() {
		return fmt.Errorf("creating the file: status %d", st)
	}
	l.handle = bytes.Clone(d.Opaque(64))
	return nil
}

// write keeps depth calls in flight; with a batch, it waits for all of it and
// commits.
func (l *load) write(until time.Time) (calls int, written int64, err error) {
	data := make([]byte, l.size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	stable := uint32(2)
	if l.batch > 0 {
		stable = 0
	}
	flying, sent := 0, 0
	for time.Now().Before(until) || flying > 0 {
		room := time.Now().Before(until) && flying < l.depth && (l.batch == 0 || sent < l.batch)
		if room {
			if err := l.send(int64(calls)*int64(l.size)%fileSize, stable, data); err != nil {
				return 0, 0, err
			}
			calls, sent, flying = calls+1, sent+1, flying+1
			continue
		}
		if flying > 0 {
			if err := l.reply(); err != nil {
				return 0, 0, err
			}
			flying--
			written += int64(l.size)
			continue
		}
		if err := l.commit(); err != nil {
			return 0, 0, err
		}
		sent = 0
	}
	return calls, written, nil
}

func (l *load) send(off int64, stable uint32, data []byte) error {
	args := append(rpctest.Opaque(l.handle), binary.BigEndian.AppendUint64(nil, uint64(off))...)
	args = append(args, rpctest.Words(uint32(len(data)), stable)...)
	_, err := l.c.Send(100003, 3, 7, append(args, rpctest.Opaque(data)...))
	return err
}

func (l *load) reply() error {
	r, err := l.c.Receive()
	if err != nil {
		return err
	}
	if st := binary.BigEndian.Uint32(r.Body); st != 0 {
		return fmt.Errorf("writing: status %d", st)
	}
	return nil
}

func (l *load) commit() error {
	args := append(rpctest.Opaque(l.handle), make([]byte, 12)...)
	if _, err := l.c.Send(100003, 3, 21, args); err != nil {
		return err
	}
	return l.reply()
}

// cpu is a process's user and system time in seconds (proc(5), stat, fields 14
// and 15, in hundredths).
func cpu(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

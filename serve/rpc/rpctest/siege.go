package rpctest

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Siege sends a server all that is wrong.
type Siege struct {
	// TCP and UDP are the server's addresses, From where the attackers come
	// from: honest clients come from elsewhere, so that the limits of one
	// address are not theirs.
	TCP, UDP string
	From     net.IP
	// Good are calls that the server answers; they are spoilt before they go
	// out. Flood is one with a long reply, which is not read.
	Good  [][]byte
	Flood []byte
}

// Begin starts the attackers. They go on until ctx ends; wait returns when all
// have ended.
func (s *Siege) Begin(ctx context.Context) (wait func()) {
	var attackers sync.WaitGroup
	seed := uint64(0)
	for _, attack := range s.attacks() {
		seed++
		r := rand.New(rand.NewPCG(seed, 1))
		attackers.Go(func() {
			for ctx.Err() == nil {
				attack(r)
			}
		})
	}
	return attackers.Wait
}

func (s *Siege) dial(network string) (net.Conn, error) {
	if network == "udp" {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: s.From}, Timeout: time.Second}
		return d.Dial(network, s.UDP)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.From}, Timeout: time.Second}
	return d.Dial(network, s.TCP)
}

// on is an attack over a connection of its own, which takes a second at most.
func (s *Siege) on(network string, write func(c net.Conn, r *rand.Rand)) func(*rand.Rand) {
	return func(r *rand.Rand) {
		c, err := s.dial(network)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		write(c, r)
	}
}

// attacks are what each attacker does over and over.
func (s *Siege) attacks() []func(r *rand.Rand) {
	return []func(*rand.Rand){
		s.on("tcp", func(c net.Conn, r *rand.Rand) { _, _ = c.Write(Noise(r, 1<<16)) }),
		s.on("udp", func(c net.Conn, r *rand.Rand) { _, _ = c.Write(Noise(r, 2000)) }),
		s.on("tcp", func(c net.Conn, r *rand.Rand) { s.spoilt(c, r, Record) }),
		s.on("udp", func(c net.Conn, r *rand.Rand) { s.spoilt(c, r, slices.Clone) }),
		s.on("tcp", hugeClaim),
		s.on("tcp", func(c net.Conn, _ *rand.Rand) { untilCut(c, bytes.Repeat([]byte{0, 0, 0, 1, 'x'}, 1000)) }),
		s.on("tcp", func(c net.Conn, _ *rand.Rand) { _, _ = c.Read(make([]byte, 1)) }),
		s.on("tcp", func(c net.Conn, _ *rand.Rand) { untilCut(c, Record(s.Flood)) }),
		s.on("tcp", func(net.Conn, *rand.Rand) {}),
	}
}

// hugeClaim begins a record of two megabytes that never comes.
func hugeClaim(c net.Conn, r *rand.Rand) {
	_, _ = c.Write(append([]byte{0x80, 0x1f, 0xff, 0xff}, Noise(r, 100)...))
	_, _ = c.Read(make([]byte, 1))
}

// untilCut sends without reading.
func untilCut(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// Noise is some random bytes, most at most.
func Noise(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most)+1)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// spoilt sends good calls with a few bytes changed, and some of them cut.
func (s *Siege) spoilt(c net.Conn, r *rand.Rand, frame func([]byte) []byte) {
	for range 100 {
		msg := slices.Clone(s.Good[r.IntN(len(s.Good))])
		for range 1 + r.IntN(4) {
			msg[r.IntN(len(msg))] = byte(r.Uint32())
		}
		if r.IntN(4) == 0 {
			msg = msg[:r.IntN(len(msg))]
		}
		if _, err := c.Write(frame(msg)); err != nil {
			return
		}
	}
}

// MemoryInUse is what this process has in use, in bytes.
func MemoryInUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

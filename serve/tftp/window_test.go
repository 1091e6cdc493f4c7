package tftp

import (
	"testing"
	"time"
)

// acks plays acknowledgements to a sender of ten blocks in windows of four, and
// gives what it did, one letter each: send, repeat, ignore, done.
func acks(w *window, numbers ...uint16) string {
	w.next()
	did := ""
	for _, n := range numbers {
		v := w.acknowledge(n)
		did += map[verdict]string{ignore: "i", send: "s", repeat: "r", done: "d"}[v]
		if v == send || v == repeat {
			w.next()
		}
	}
	return did
}

func TestWhatAcknowledgementsMean(t *testing.T) {
	for name, c := range map[string]struct {
		window  int
		numbers []uint16
		want    string
	}{
		"all goes well":        {4, []uint16{4, 8, 10}, "ssd"},
		"a hole in the window": {4, []uint16{2, 6, 10}, "ssd"},
		"a client that repeats itself at a hole is answered once": {4, []uint16{2, 2, 2, 6}, "siis"},
		"the window's first block was lost":                       {4, []uint16{4, 4, 8, 10}, "srsd"},
		"doubled packets do not double the traffic":               {4, []uint16{4, 4, 8, 8, 10}, "srsid"},
		"the first window's first block was lost":                 {4, []uint16{0, 4}, "rs"},
		"an acknowledgement that comes late":                      {4, []uint16{4, 3, 1, 0, 8}, "siiis"},
		"one that was never sent":                                 {4, []uint16{5, 9, 65535}, "iii"},
		"plain RFC 1350 never answers twice":                      {1, []uint16{1, 1, 1, 2, 2, 3}, "siisis"},
	} {
		w := newWindow(10*512-1, terms{block: 512, window: c.window})
		if got := acks(&w, c.numbers...); got != c.want {
			t.Errorf("%s: %v: did %s, want %s", name, c.numbers, got, c.want)
		}
	}
}

func TestAFileOfWholeBlocksEndsWithAnEmptyOne(t *testing.T) {
	for bytes, last := range map[int64]int64{0: 1, 1: 1, 511: 1, 512: 2, 513: 2, 1024: 3} {
		if w := newWindow(bytes, terms{block: 512, window: 1}); w.last != last {
			t.Errorf("%d bytes: %d blocks, want %d", bytes, w.last, last)
		}
	}
}

func TestBlockNumbersWrapToZero(t *testing.T) {
	w := newWindow(200000*512, terms{block: 512, window: 16})
	for {
		_, last := w.next()
		v := w.acknowledge(uint16(last))
		if v == done {
			break
		}
		if v != send {
			t.Fatalf("block %d was not taken", last)
		}
	}
	if w.base != 200001 {
		t.Errorf("ended at block %d", w.base)
	}
}

// The law: whatever a client acknowledges, the sender stays inside the file and
// the window, never goes back, and repeats a window at most once for a number.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{4, 0, 4, 0, 4, 0, 8}, uint8(4), uint16(10))
	f.Fuzz(func(t *testing.T, raw []byte, size uint8, blocks uint16) {
		w := newWindow(int64(blocks)*512, terms{block: 512, window: max(1, int(size)%maxWindow)})
		w.next()
		repeats := 0
		for ; len(raw) >= 2; raw = raw[2:] {
			before := w.base
			v := w.acknowledge(uint16(raw[0])<<8 | uint16(raw[1]))
			if v == repeat {
				repeats++
			}
			if w.base < before || w.base > w.sent || w.sent > w.last || (v == done) != (w.base == w.last) {
				t.Fatalf("%+v after %v", w, v)
			}
			if w.base > before {
				repeats = 0
			}
			if repeats > 1 {
				t.Fatal("a window was repeated twice for one acknowledgement")
			}
			if v == done {
				return
			}
			if v != ignore {
				if first, last := w.next(); first > last || last-first >= w.size {
					t.Fatalf("sends %d to %d", first, last)
				}
			}
		}
	})
}

func TestPatience(t *testing.T) {
	p := patience{}
	if p.wait() != time.Second {
		t.Errorf("waits %v at first", p.wait())
	}
	for range 50 {
		p.answered(300*time.Microsecond, false)
	}
	if p.wait() != leastWait {
		t.Errorf("waits %v on a quick network", p.wait())
	}
	n := 1
	for ; p.expired(); n++ {
		if p.wait() > mostWait {
			t.Errorf("waits %v", p.wait())
		}
	}
	if n != tries {
		t.Errorf("gave up after %d", n)
	}
	asked := patience{fixed: 255 * time.Second}
	if asked.wait() != 255*time.Second || !asked.expired() || asked.expired() {
		t.Error("a negotiated timeout is waited for twice, as it was negotiated")
	}
}

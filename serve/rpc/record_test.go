package rpc

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// fragment cuts a record into fragments of the sizes given, the last of which
// is what remains.
func fragment(record []byte, sizes ...byte) []byte {
	var wire []byte
	for _, s := range sizes {
		n := min(int(s), len(record))
		wire = append(wire, byte(0), byte(n>>16), byte(n>>8), byte(n))
		wire = append(wire, record[:n]...)
		record = record[n:]
	}
	n := len(record)
	wire = append(wire, 0x80, byte(n>>16), byte(n>>8), byte(n))
	return append(wire, record...)
}

// readAll takes all records out of src.
func readAll(r *recordReader, src io.Reader) ([][]byte, error) {
	var records [][]byte
	for {
		rec, ok, err := r.next()
		if err != nil {
			return records, err
		}
		if ok {
			records = append(records, slices.Clone(rec))
			continue
		}
		if err := r.fill(src); err != nil {
			return records, err
		}
	}
}

func TestRecordsSurviveAnyCutOfTheStream(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	want := [][]byte{[]byte("one"), {}, []byte("in five pieces"), big, []byte("last")}
	wire := slices.Concat(fragment(want[0]), fragment(nil), fragment(want[2], 3, 0, 1, 5), fragment(big, 255, 7), fragment(want[4]))
	for name, src := range map[string]io.Reader{
		"whole":     bytes.NewReader(wire),
		"halves":    iotest.HalfReader(bytes.NewReader(wire)),
		"each byte": iotest.OneByteReader(bytes.NewReader(wire)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(newRecordReader(1<<20, nil), src)
			if !errors.Is(err, io.EOF) {
				t.Fatalf("reading ended with %v", err)
			}
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("%d records came out, not the %d that went in", len(got), len(want))
			}
		})
	}
}

func TestRecordLongerThanTheLimitIsRefusedBeforeItArrives(t *testing.T) {
	for name, wire := range map[string][]byte{
		"one fragment":    {0xff, 0xff, 0xff, 0xff},
		"many fragments":  append(fragment(make([]byte, 900), 255, 255, 255)[:4*3+255*3], 0x80, 0, 4, 0),
		"not the last":    {0x00, 0x00, 0x04, 0x01},
		"one byte beyond": {0x80, 0x00, 0x04, 0x01},
	} {
		r := newRecordReader(1024, nil)
		if _, err := readAll(r, bytes.NewReader(wire)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: no refusal, but %v", name, err)
		}
	}
}

func TestClaimedLengthTakesNoMemory(t *testing.T) {
	r := newRecordReader(2<<20, &budget{limit: 0})
	// A claim of 2 MiB, of which a few bytes come.
	if _, err := readAll(r, bytes.NewReader([]byte{0x80, 0x1f, 0, 0, 1, 2, 3})); !errors.Is(err, io.EOF) {
		t.Fatalf("reading ended with %v", err)
	}
	if r.grown() {
		t.Errorf("the buffer has %d bytes for a record of which 3 arrived", len(r.buf))
	}
}

func TestRecordBeyondTheMemoryEndsTheConnection(t *testing.T) {
	m := &budget{limit: 40 << 10}
	r := newRecordReader(2<<20, m)
	if _, err := readAll(r, bytes.NewReader(fragment(make([]byte, 100<<10)))); !errors.Is(err, errMemory) {
		t.Fatalf("reading ended with %v", err)
	}
	r.close()
	if used := m.used.Load(); used != 0 {
		t.Errorf("%d bytes were not given back", used)
	}
}

// FuzzRecordReader: however a record is cut into fragments and reads, it comes
// out whole; and no stream whatever makes the buffer larger than the limit
// allows.
func FuzzRecordReader(f *testing.F) {
	f.Add([]byte("a record"), []byte{1, 0, 3}, uint8(2))
	f.Add([]byte{0x80, 0, 0, 4, 1, 2, 3, 4}, []byte{}, uint8(1))
	f.Fuzz(func(t *testing.T, data, cuts []byte, step uint8) {
		const limit = 4096
		if len(data) > limit || len(cuts) > 64 {
			return
		}
		src := &stepReader{fragment(data, cuts...), int(step) + 1}
		got, err := readAll(newRecordReader(limit, nil), src)
		if !errors.Is(err, io.EOF) || len(got) != 1 || !bytes.Equal(got[0], data) {
			t.Errorf("%d bytes in fragments %v gave %d records, %v", len(data), cuts, len(got), err)
		}
		raw := newRecordReader(limit, nil)
		readAll(raw, &stepReader{data, int(step) + 1})
		if len(raw.buf) > limit+recordMark+recordBuffer {
			t.Errorf("the buffer grew to %d", len(raw.buf))
		}
	})
}

// stepReader gives a few bytes at a time.
type stepReader struct {
	rest []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(r.step, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

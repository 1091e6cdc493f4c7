package rpc

import "encoding/binary"

// Decoder reads XDR (RFC 4506) out of bytes that came from the network. The
// first value that does not fit makes it bad; from then on every read gives
// zero, so that a whole structure is read first and Ok asked once.
//
// Nothing is copied: slices that it gives point into the packet.
type Decoder struct {
	rest []byte
	bad  bool
}

// NewDecoder reads from b.
func NewDecoder(b []byte) Decoder { return Decoder{rest: b} }

// Ok tells whether everything read so far was there.
func (d *Decoder) Ok() bool { return !d.bad }

// Rest is what was not read yet.
func (d *Decoder) Rest() []byte { return d.rest }

// Uint32 reads an unsigned int (RFC 4506, 4.2).
func (d *Decoder) Uint32() uint32 {
	if len(d.rest) < 4 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(d.rest)
	d.rest = d.rest[4:]
	return v
}

// Uint64 reads an unsigned hyper (RFC 4506, 4.5).
func (d *Decoder) Uint64() uint64 {
	if len(d.rest) < 8 {
		d.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.rest)
	d.rest = d.rest[8:]
	return v
}

// Bool reads a bool (RFC 4506, 4.4), which is 0 or 1 and nothing else.
func (d *Decoder) Bool() bool {
	v := d.Uint32()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

// Fixed reads n bytes and their padding (RFC 4506, 4.9). What the padding
// holds is not looked at.
func (d *Decoder) Fixed(n int) []byte {
	padded := n + pad(n)
	if n < 0 || padded < n || len(d.rest) < padded {
		d.fail()
		return nil
	}
	v := d.rest[:n:n]
	d.rest = d.rest[padded:]
	return v
}

// Opaque reads variable-length bytes or a string (RFC 4506, 4.10 and 4.11) of
// at most limit bytes.
func (d *Decoder) Opaque(limit int) []byte {
	n := d.Uint32()
	if d.bad || uint64(n) > uint64(limit) {
		d.fail()
		return nil
	}
	return d.Fixed(int(n))
}

func (d *Decoder) fail() {
	d.bad = true
	d.rest = nil
}

// pad is how many bytes make n a multiple of four.
func pad(n int) int { return -n & 3 }

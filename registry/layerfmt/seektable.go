package layerfmt

// The seek table of the Zstandard seekable format 0.1.0
// (facebook/zstd, contrib/seekable_format/zstd_seekable_compression_format.md):
// a skippable frame of one entry per frame, then a footer of 9 bytes.
const (
	seekFooterLen   = 9
	seekFooterMagic = 0x8F92EAB1
	seekChecksum    = 0x80 // descriptor: every entry has a checksum
	seekReserved    = 0x7c // descriptor: bits that must be zero
)

// seekEntry is one frame in a seek table.
type seekEntry struct{ length, plain uint32 }

// seekTable writes the table for the frames and, as a frame that decodes to
// nothing, the index frame of indexLen bytes.
func seekTable(frames []FrameInfo, indexLen int) []byte {
	n := len(frames) + 1
	out := skippable(seekTableMagic, n*8+seekFooterLen)
	for _, f := range frames {
		out = le.AppendUint32(out, uint32(f.Length))
		out = le.AppendUint32(out, uint32(f.Plain))
	}
	out = le.AppendUint32(out, uint32(indexLen))
	out = le.AppendUint32(out, 0)
	out = le.AppendUint32(out, uint32(n))
	out = append(out, 0)
	return le.AppendUint32(out, seekFooterMagic)
}

// seekTableLen reads a blob's last seekFooterLen bytes and says how long the
// whole seek table frame is.
func seekTableLen(footer []byte) (int64, error) {
	if len(footer) != seekFooterLen || le.Uint32(footer[5:]) != seekFooterMagic {
		return 0, corrupt("the blob does not end in a seek table: it is cut short, or no seekable zstd")
	}
	if footer[4]&seekReserved != 0 {
		return 0, corrupt("the seek table's descriptor %#x has reserved bits", footer[4])
	}
	return skippableHead + int64(le.Uint32(footer))*int64(seekEntryLen(footer[4])) + seekFooterLen, nil
}

func seekEntryLen(descriptor byte) int {
	if descriptor&seekChecksum != 0 {
		return 12
	}
	return 8
}

// parseSeekTable reads a whole seek table frame. The entries take no more
// memory than the frame.
func parseSeekTable(b []byte) ([]seekEntry, error) {
	if len(b) < skippableHead+seekFooterLen {
		return nil, corrupt("a seek table of %d bytes", len(b))
	}
	footer := b[len(b)-seekFooterLen:]
	want, err := seekTableLen(footer)
	if err != nil {
		return nil, err
	}
	if want != int64(len(b)) || le.Uint32(b) != seekTableMagic || int64(le.Uint32(b[4:])) != want-skippableHead {
		return nil, corrupt("the seek table's frame has %d bytes and its footer asks for %d", len(b), want)
	}
	width := seekEntryLen(footer[4])
	out := make([]seekEntry, le.Uint32(footer))
	for i := range out {
		e := b[skippableHead+i*width:]
		out[i] = seekEntry{length: le.Uint32(e), plain: le.Uint32(e[4:])}
	}
	return out, nil
}

// checkSeekTable wants the table to say what the index says.
func checkSeekTable(table []seekEntry, x *Index) error {
	if len(table) != x.Frames()+1 {
		return corrupt("the seek table has %d frames and the index %d", len(table), x.Frames()+1)
	}
	for n := range x.Frames() {
		f := x.Frame(n)
		if int(table[n].length) != f.Length || int(table[n].plain) != f.Plain {
			return corrupt("frame %d has %d bytes for %d by the seek table, and %d for %d by the index",
				n, table[n].length, table[n].plain, f.Length, f.Plain)
		}
	}
	return nil
}

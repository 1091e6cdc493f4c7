package lazy

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// A ledger remembers which pieces of a growing blob were fetched, so that the
// next process goes on with them. It is a file of records, each the piece's
// number (32 bits, little-endian) and the sha256 of its bytes. A record is
// written after its piece, and believed only when the piece still has that sum:
// so it does not matter which of the two a crash or a power cut lost.
type ledger struct {
	file *os.File
	// end is where the next record goes; what a crash tore is written over.
	end int64
}

const recordLen = 4 + sha256.Size

// recordsPerPiece bounds a ledger: a piece has more than one record only where
// it was damaged and fetched again.
const recordsPerPiece = 16

type sum = [sha256.Size]byte

// openLedger opens or makes a ledger and reads what it says of a blob of so
// many pieces. The last record of a piece counts.
func openLedger(path string, pieces int64) (*ledger, map[int]sum, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the record of fetched pieces: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, pieces*recordLen*recordsPerPiece))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading the record of fetched pieces %q: %w", path, err), f.Close())
	}
	claims := readLedger(data, pieces)
	return &ledger{file: f, end: int64(len(data) - len(data)%recordLen)}, claims, nil
}

// readLedger reads records; one that is torn or of no piece counts for nothing.
func readLedger(data []byte, pieces int64) map[int]sum {
	claims := map[int]sum{}
	for ; len(data) >= recordLen; data = data[recordLen:] {
		if i := int64(binary.LittleEndian.Uint32(data)); i < pieces {
			claims[int(i)] = sum(data[4:])
		}
	}
	return claims
}

// note records a piece. A ledger that cannot be written costs another fetch
// after the next start, and nothing now.
func (l *ledger) note(i int, s sum) {
	if l == nil {
		return
	}
	record := append(binary.LittleEndian.AppendUint32(nil, uint32(i)), s[:]...)
	if _, err := l.file.WriteAt(record, l.end); err == nil {
		l.end += recordLen
	}
}

// forget drops all records.
func (l *ledger) forget() {
	if l != nil && l.file.Truncate(0) == nil {
		l.end = 0
	}
}

func (l *ledger) close() {
	if l != nil {
		l.file.Close()
	}
}

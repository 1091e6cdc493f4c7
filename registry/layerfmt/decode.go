package layerfmt

import (
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Decoder decodes frames. It is safe for use by many goroutines and decodes
// as many frames at once as it was made for.
type Decoder struct{ z *zstd.Decoder }

// NewDecoder makes a decoder for jobs frames at once; 0 means one per
// processor, at most 4.
func NewDecoder(jobs int) (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(jobs), zstd.WithDecoderMaxMemory(MaxFrame),
		zstd.WithDecoderMaxWindow(MaxFrame), zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
	if err != nil {
		return nil, fmt.Errorf("starting a zstd decoder: %w", err)
	}
	return &Decoder{z: z}, nil
}

// DecodeFrame checks a frame's bytes against the index and then decodes them
// into dst, which must have room for info.Plain bytes. It returns dst[:Plain].
// Nothing is decoded, and dst untouched, unless the sha256 is right.
func (d *Decoder) DecodeFrame(dst, packed []byte, info FrameInfo) ([]byte, error) {
	if len(packed) != info.Length || sha256.Sum256(packed) != info.Digest {
		return nil, corrupt("a frame's bytes are not those that the index promises")
	}
	if cap(dst) < info.Plain {
		return nil, fmt.Errorf("decoding a frame of %d bytes into a buffer of %d", info.Plain, cap(dst))
	}
	out, err := d.z.DecodeAll(packed, dst[:0])
	if err != nil || len(out) != info.Plain {
		return nil, corrupt("a frame decodes to %d bytes and should to %d (%v)", len(out), info.Plain, err)
	}
	return out, nil
}

// Close frees the decoder.
func (d *Decoder) Close() { d.z.Close() }

// Package layerfmt is the format of a layer to the byte: a tar in the
// Zstandard seekable format, with a tree index in a skippable frame. Package
// pipeline/layer writes it, serve/rootfs reads it, and docs/storage.md
// describes it for whoever writes another reader.
//
//	zstd frame | zstd frame | ... | index frame | seek table frame
//
// Every zstd frame decodes alone, to at most MaxFrame bytes of the tar. The
// index frame and the seek table are skippable frames (RFC 8878, 3.1.2), so
// that a plain decoder sees a plain stream.
//
// Whoever debugs: Verify names the first thing wrong with a blob.
package layerfmt

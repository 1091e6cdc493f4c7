#!/usr/bin/env python3
"""Reads a layer by docs/storage.md alone, and prints one line per path.

It shares no code with the Go reader: a test wants both to say the same.
"""
import hashlib
import struct
import subprocess
import sys


def crc32c(data):
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    c = 0xFFFFFFFF
    for b in data:
        c = table[(c ^ b) & 0xFF] ^ (c >> 8)
    return c ^ 0xFFFFFFFF


blob = open(sys.argv[1], "rb").read()
frames, descriptor, magic = struct.unpack("<IBI", blob[-9:])
assert magic == 0x8F92EAB1 and descriptor & 0x7C == 0
width = 12 if descriptor & 0x80 else 8
table_at = len(blob) - (8 + width * frames + 9)
assert struct.unpack_from("<II", blob, table_at) == (0x184D2A5E, width * frames + 9)
entries = [struct.unpack_from("<II", blob, table_at + 8 + width * n) for n in range(frames)]
assert sum(e[0] for e in entries) == table_at and entries[-1][1] == 0

index_at = table_at - entries[-1][0]
magic, length = struct.unpack_from("<II", blob, index_at)
assert magic == 0x184D2A52
x = blob[index_at + 8:table_at]
name, version, crc, total, n_inodes, n_names, n_frames, n_xattrs, n_bodies, n_tar, n_heap, stream = struct.unpack_from("<8sIIQIIIIIIQQ", x)
assert (name, version, total, length) == (b"rzlayer\0", 1, len(x), len(x))
assert crc == crc32c(x[:12] + bytes(4) + x[16:])

at = 112
inodes, at = at, at + 64 * n_inodes
frame_recs, at = at, at + 56 * n_frames
digests, at = at, at + 32 * n_bodies
xattrs, at = at, at + 16 * n_xattrs
names, at = at, at + 12 * n_names
heap = x[at:]
assert len(heap) == n_heap

tar = b""
for n in range(n_frames):
    where, begin, size, plain, digest = struct.unpack_from("<QQII32s", x, frame_recs + 56 * n)
    assert entries[n] == (size, plain) and begin == len(tar)
    packed = blob[where:where + size]
    assert hashlib.sha256(packed).digest() == digest
    out = subprocess.run(["zstd", "-dc"], input=packed, stdout=subprocess.PIPE, check=True).stdout
    assert len(out) == plain
    tar += out
assert len(tar) == stream and hashlib.sha256(tar).digest() == x[64:96]

KINDS = "? dir file symlink char block fifo whiteout link".split()


def show(path, i):
    kind, bits, mode, uid, gid, nlink, size, sec, nsec, flags, a, b, _, xa, n_xa = struct.unpack_from("<BBHIIIQqIIQIIII", x, inodes + 64 * (i - 1))
    line = [path, KINDS[kind], "%04o" % mode, "%d:%d" % (uid, gid), str(nlink), str(size), str(sec), str(nsec), str(bits)]
    flag_len, = struct.unpack_from("<H", heap, flags)
    line.append(heap[flags + 2:flags + 2 + flag_len].decode())
    for n in range(xa, xa + n_xa):
        ko, kl, vo, vl = struct.unpack_from("<IIII", x, xattrs + 16 * n)
        line.append(heap[ko:ko + kl].decode() + "=" + heap[vo:vo + vl].hex())
    if kind == 2:
        body = tar[a:a + size] if size else b""
        digest = hashlib.sha256(body)
        assert size == 0 or digest.digest() == x[digests + 32 * b:digests + 32 * b + 32]
        line.append(digest.hexdigest())
    elif kind in (3, 8):
        line.append(heap[a & 0xFFFFFFFF:(a & 0xFFFFFFFF) + size].decode())
    elif kind in (4, 5):
        line.append("%d,%d" % (a & 0xFFFFFFFF, a >> 32))
    print(" ".join(line))
    if kind == 1:
        first, count = a & 0xFFFFFFFF, a >> 32
        for n in range(first, first + count):
            off, child, ln, k, _ = struct.unpack_from("<IIHBB", x, names + 12 * n)
            show(path + "/" + heap[off:off + ln].decode(), child)


show("", 1)

package volume

import (
	"time"

	"rhizome/serve/rpc"
)

// kind is ftype3 (RFC 1813, 2.6).
type kind uint32

const (
	kindRegular kind = 1
	kindDir     kind = 2
	kindBlock   kind = 3
	kindChar    kind = 4
	kindSymlink kind = 5
	kindSocket  kind = 6
	kindFifo    kind = 7
)

func (k kind) device() bool { return k == kindBlock || k == kindChar }

// The bits of a mode beyond rwx.
const (
	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeSticky = 0o1000
	modeAll    = 0o7777
)

// moment is nfstime3: seconds and nanoseconds since 1970. NFS has 32 bits for
// the seconds, unsigned: what is earlier shows as 1970, later as 2106.
type moment struct {
	Sec  int64
	Nsec uint32
}

func momentOf(t time.Time) moment { return moment{t.Unix(), uint32(t.Nanosecond())} }

func (m moment) time() time.Time { return time.Unix(m.Sec, int64(m.Nsec)) }

func (m moment) after(o moment) bool { return m.Sec > o.Sec || m.Sec == o.Sec && m.Nsec > o.Nsec }

func (m moment) append(out *rpc.Reply) {
	sec, nsec := m.Sec, m.Nsec
	if sec < 0 {
		sec, nsec = 0, 0
	}
	out.Uint32(uint32(min(sec, 1<<32-1)))
	out.Uint32(nsec)
}

// attr is what a tree knows of an object.
type attr struct {
	kind                kind
	mode, nlink         uint32
	uid, gid            uint32
	size, used          uint64 // bytes; used is what it takes on the disk
	major, minor        uint32
	fileid              uint64
	atime, mtime, ctime moment
}

// append is fattr3 (RFC 1813, 2.6).
func (a *attr) append(out *rpc.Reply, fsid uint64) {
	out.Uint32(uint32(a.kind))
	out.Uint32(a.mode & modeAll)
	out.Uint32(a.nlink)
	out.Uint32(a.uid)
	out.Uint32(a.gid)
	out.Uint64(a.size)
	out.Uint64(a.used)
	out.Uint32(a.major)
	out.Uint32(a.minor)
	out.Uint64(fsid)
	out.Uint64(a.fileid)
	a.atime.append(out)
	a.mtime.append(out)
	a.ctime.append(out)
}

// fattr3Size is the length of fattr3 in bytes.
const fattr3Size = 84

// appendPostOp is post_op_attr; a nil attr is none.
func appendPostOp(out *rpc.Reply, a *attr, fsid uint64) {
	out.Bool(a != nil)
	if a != nil {
		a.append(out, fsid)
	}
}

// appendWcc is wcc_data (RFC 1813, 2.6): what was before, and what is after.
func appendWcc(out *rpc.Reply, before, after *attr, fsid uint64) {
	out.Bool(before != nil)
	if before != nil {
		out.Uint64(before.size)
		before.mtime.append(out)
		before.ctime.append(out)
	}
	appendPostOp(out, after, fsid)
}

// setAttrs is sattr3 (RFC 1813, 2.6).
type setAttrs struct {
	hasMode, hasUID, hasGID, hasSize bool
	hasAtime, hasMtime               bool
	// own says that a time is the client's and not the server's.
	ownAtime, ownMtime bool

	mode, uid, gid uint32
	size           uint64
	atime, mtime   moment
}

// decodeSetAttrs reads sattr3; now stands in where the client leaves a time to
// the server.
func decodeSetAttrs(d *rpc.Decoder, now moment) (s setAttrs) {
	if s.hasMode = d.Bool(); s.hasMode {
		s.mode = d.Uint32() & modeAll
	}
	if s.hasUID = d.Bool(); s.hasUID {
		s.uid = d.Uint32()
	}
	if s.hasGID = d.Bool(); s.hasGID {
		s.gid = d.Uint32()
	}
	if s.hasSize = d.Bool(); s.hasSize {
		s.size = d.Uint64()
	}
	s.hasAtime, s.ownAtime, s.atime = decodeSetTime(d, now)
	s.hasMtime, s.ownMtime, s.mtime = decodeSetTime(d, now)
	return s
}

// decodeSetTime reads set_atime or set_mtime: leave it, the server's time, or
// the client's.
func decodeSetTime(d *rpc.Decoder, now moment) (has, own bool, m moment) {
	switch how := d.Uint32(); how {
	case 0:
		return false, false, m
	case 1:
		return true, false, now
	case 2:
		m = decodeMoment(d)
		return true, true, m
	default:
		d.Fixed(-1) // no such how: the whole call is garbage
		return false, false, m
	}
}

func decodeMoment(d *rpc.Decoder) moment {
	m := moment{int64(d.Uint32()), d.Uint32()}
	m.Nsec = min(m.Nsec, 999_999_999)
	return m
}

package nfs

import (
	"errors"
	"io/fs"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// Cookies 1 and 2 come after "." and ".."; a view's own follow, by so much
// higher.
const ownCookies = 2

// lister writes the entries of one READDIR or READDIRPLUS, as many as fit.
type lister struct {
	out  *rpc.Reply
	fs   FS
	fsid uint64
	// plus asks for attributes and handles as well.
	plus bool
	// room is how many bytes of results are left, and names how many of
	// fileids, names and cookies (READDIRPLUS's dircount).
	room, names int
	count       int
	full        bool
	err         error
}

// readdir is READDIR (RFC 1813, 3.3.16).
func (r *request) readdir() rpc.Status {
	cookie, verf, count := r.args.Uint64(), r.args.Uint64(), r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	return r.list(&lister{room: int(count), names: int(count)}, cookie, verf)
}

// readdirplus is READDIRPLUS (RFC 1813, 3.3.17).
func (r *request) readdirplus() rpc.Status {
	cookie, verf, dircount, maxcount := r.args.Uint64(), r.args.Uint64(), r.args.Uint32(), r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	return r.list(&lister{plus: true, room: int(maxcount), names: int(dircount)}, cookie, verf)
}

// verifier is the cookie verifier: views never change, so that a cookie holds
// for as long as the image's id does.
func (r *request) verifier() uint64 {
	v := uint64(0)
	id := r.fs.ID()
	for _, b := range id[:8] {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *request) checkList(cookie, verf uint64) status {
	switch {
	case r.attr.Kind != rootfs.Dir:
		return errNotDir
	case allowed(&r.who, &r.attr)&mayRead == 0:
		return errAcces
	case cookie != 0 && verf != 0 && verf != r.verifier():
		// 0 is let through: some clients never send the verifier back.
		return errBadCookie
	}
	return ok
}

func (r *request) list(l *lister, cookie, verf uint64) rpc.Status {
	if st := r.checkList(cookie, verf); st != ok {
		return r.fail(st)
	}
	r.searched(r.file)
	start := r.out.Mark()
	l.out, l.fs, l.fsid = r.out, r.fs, r.fsid
	// Around the entries stand attributes, verifier, the list's end and eof.
	const frame = 4 + fattr3Size + 8 + 4 + 4
	l.room = min(l.room, maxList(r.call.Peer.Transport)) - frame
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.Uint64(r.verifier())
	l.entries(r.file, r.attr.FileID, cookie)
	if l.err != nil || l.full && l.count == 0 {
		r.out.Rewind(start)
		return r.fail(l.status())
	}
	r.out.Uint32(0)
	r.out.Bool(!l.full)
	return rpc.Success
}

func maxList(t rpc.Transport) int {
	if t == rpc.UDP {
		return maxDirUDP
	}
	return maxDirTCP
}

// status is why nothing is listed. What a view finds invalid about a directory
// is the cookie.
func (l *lister) status() status {
	switch {
	case l.err == nil:
		return errTooSmall
	case errors.Is(l.err, fs.ErrInvalid):
		return errBadCookie
	}
	return toStatus(l.err)
}

// entries writes what comes after cookie.
func (l *lister) entries(dir rootfs.File, fileID, cookie uint64) {
	if cookie == 0 && !l.add(rootfs.Dirent{Name: ".", File: dir, FileID: fileID}, 1) {
		return
	}
	if cookie <= 1 && !l.addParent(dir) {
		return
	}
	after := uint64(0)
	if cookie > ownCookies {
		after = cookie - ownCookies
	}
	err := l.fs.ReadDir(dir, after, func(d rootfs.Dirent) bool { return l.add(d, d.Cookie+ownCookies) })
	if err != nil {
		l.err = err
	}
}

func (l *lister) addParent(dir rootfs.File) bool {
	parent, err := l.fs.Parent(dir)
	if err != nil {
		l.err = err
		return false
	}
	attr, err := l.fs.Attr(parent)
	if err != nil {
		l.err = err
		return false
	}
	return l.add(rootfs.Dirent{Name: "..", File: parent, FileID: attr.FileID}, 2)
}

// add writes one entry, if there is room for it.
func (l *lister) add(d rootfs.Dirent, cookie uint64) bool {
	name := 8 + 4 + (len(d.Name)+3)&^3 + 8
	size := 4 + name
	if l.plus {
		size += 4 + fattr3Size + 4 + 4 + maxHandle
	}
	if size > l.room || name > l.names && l.count > 0 {
		l.full = true
		return false
	}
	before := l.out.Len()
	l.out.Uint32(1)
	l.out.Uint64(d.FileID)
	l.out.String(d.Name)
	l.out.Uint64(cookie)
	if l.plus && !l.addPlus(d.File) {
		return false
	}
	l.room -= l.out.Len() - before
	l.names -= name
	l.count++
	return true
}

func (l *lister) addPlus(f rootfs.File) bool {
	attr, err := l.fs.Attr(f)
	if err != nil {
		l.err = err
		return false
	}
	appendPostOp(l.out, &attr, l.fsid)
	l.out.Uint32(1)
	appendHandle(l.out, l.fs, f)
	return true
}

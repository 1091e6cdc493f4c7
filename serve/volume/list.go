package volume

import (
	"rhizome/serve/rpc"
)

// lister writes the entries of one READDIR or READDIRPLUS, as many as fit.
type lister struct {
	r *request
	// plus asks for attributes and handles as well.
	plus bool
	// room is how many bytes of results are left, and names how many of
	// fileids, names and cookies (READDIRPLUS's dircount).
	room, names int
	count       int
	full        bool
}

// readdir is READDIR and READDIRPLUS (RFC 1813, 3.3.16 and 3.3.17). The cookie
// verifier is always 0: cookies outlive every change to the directory.
func (r *request) readdir() rpc.Status {
	cookie, _, names := r.args.Uint64(), r.args.Uint64(), r.args.Uint32()
	l := lister{r: r, room: int(names), names: int(names)}
	if r.call.Procedure == procReaddirplus {
		l.plus, l.room = true, int(r.args.Uint32())
	}
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	switch {
	case r.attr.kind != kindDir:
		return r.fail(statusNotDir)
	case !r.who.may(&r.attr, mayRead):
		return r.fail(statusAcces)
	case cookie > maxFileSize:
		return r.fail(statusBadCookie)
	}
	// Handles and attributes of names are what LOOKUP would give.
	l.plus = l.plus && r.who.may(&r.attr, mayExec) || l.plus && r.who.root()
	return l.run(cookie)
}

func (l *lister) run(cookie uint64) rpc.Status {
	r := l.r
	start := r.out.Mark()
	// Around the entries stand attributes, verifier, the list's end and eof.
	const frame = 4 + fattr3Size + 8 + 4 + 4
	l.room = min(l.room, maxList(r.call.Peer.Transport)) - frame
	r.out.Uint32(uint32(statusOK))
	r.postOp(&r.attr)
	r.out.Uint64(0)
	err := r.obj.list(cookie, l.add)
	if err == nil && l.full && l.count == 0 {
		err = statusTooSmall
	}
	if err != nil {
		r.out.Rewind(start)
		return r.failed(err)
	}
	r.out.Bool(false)
	r.out.Bool(!l.full)
	return rpc.Success
}

func maxList(t rpc.Transport) int {
	if t == rpc.UDP {
		return maxDirUDP
	}
	return maxDirTCP
}

// add writes one entry, if there is room for it.
func (l *lister) add(d dirent) bool {
	name := 8 + 4 + (len(d.name)+3)&^3 + 8
	size := 4 + name
	if l.r.call.Procedure == procReaddirplus {
		size += 4 + fattr3Size + 4 + 4 + maxHandle
	}
	if size > l.room || name > l.names && l.count > 0 {
		l.full = true
		return false
	}
	out := l.r.out
	before := out.Len()
	out.Bool(true)
	out.Uint64(d.fileid)
	out.String(d.name)
	out.Uint64(d.cookie)
	if l.r.call.Procedure == procReaddirplus {
		l.addPlus(d)
	}
	l.room -= out.Len() - before
	l.names -= name
	l.count++
	return true
}

// addPlus adds name_attributes and name_handle, or that there are none: a name
// may be gone again already.
func (l *lister) addPlus(d dirent) {
	o := l.entry(d)
	if o == nil {
		l.r.out.Bool(false)
		l.r.out.Bool(false)
		return
	}
	defer o.close()
	l.r.postOp(after(o))
	l.r.out.Bool(true)
	l.r.appendHandle(o)
}

func (l *lister) entry(d dirent) object {
	if !l.plus {
		return nil
	}
	var o object
	var err error
	if d.name == ".." {
		o, err = l.r.obj.parent()
	} else {
		o, err = l.r.obj.lookup(d.name)
	}
	if err != nil {
		return nil
	}
	return o
}

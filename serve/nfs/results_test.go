package nfs

import (
	"fmt"

	"rhizome/serve/rpc"
)

// fattr is fattr3 (RFC 1813, 2.6).
type fattr struct {
	Type, Mode, Nlink, UID, GID uint32
	Size, Used                  uint64
	Major, Minor                uint32
	FSID, FileID                uint64
	Atime, Mtime, Ctime         uint64
}

// entry is entry3 or entryplus3.
type entry struct {
	FileID, Cookie uint64
	Name           string
	Attr           *fattr
	Handle         []byte
}

// results are what any procedure may answer, as a client reads it.
type results struct {
	Status status
	// Obj is the attributes of what the call was about, Dir of its directory
	// (LOOKUP, and the second of RENAME and LINK).
	Obj, Dir *fattr
	Handle   []byte
	Access   uint32
	Data     []byte
	EOF      bool
	Verifier uint64
	Entries  []entry
	// Words are the numbers of FSSTAT, FSINFO and PATHCONF.
	Words []uint64
}

type resultReader struct{ rpc.Decoder }

func (d *resultReader) attr() *fattr {
	return &fattr{
		Type: d.Uint32(), Mode: d.Uint32(), Nlink: d.Uint32(), UID: d.Uint32(), GID: d.Uint32(),
		Size: d.Uint64(), Used: d.Uint64(), Major: d.Uint32(), Minor: d.Uint32(),
		FSID: d.Uint64(), FileID: d.Uint64(), Atime: d.Uint64(), Mtime: d.Uint64(), Ctime: d.Uint64(),
	}
}

func (d *resultReader) postOp() *fattr {
	if !d.Bool() {
		return nil
	}
	return d.attr()
}

func (d *resultReader) wcc() *fattr {
	if d.Bool() {
		d.Fixed(24)
	}
	return d.postOp()
}

// parseResults reads the results of a procedure to the last byte: one that
// lacks something, or has something left, is an error.
func parseResults(procedure uint32, body []byte) (results, error) {
	d := &resultReader{rpc.NewDecoder(body)}
	r := results{Status: status(d.Uint32())}
	if r.Status == ok {
		d.success(procedure, &r)
	} else {
		d.failure(procedure, &r)
	}
	if !d.Ok() || len(d.Rest()) != 0 {
		return r, fmt.Errorf("the results of %s are malformed: %x", procNames[procedure], body)
	}
	return r, nil
}

func (d *resultReader) failure(procedure uint32, r *results) {
	switch procedure {
	case procGetattr:
	case procLookup, procAccess, procReadlink, procRead, procReaddir, procReaddirplus, procFsstat, procFsinfo, procPathconf:
		r.Obj = d.postOp()
	case procRename:
		r.Obj, r.Dir = d.wcc(), d.wcc()
	case procLink:
		r.Obj, r.Dir = d.postOp(), d.wcc()
	default:
		r.Obj = d.wcc()
	}
}

func (d *resultReader) success(procedure uint32, r *results) {
	if procedure == procGetattr {
		r.Obj = d.attr()
		return
	}
	if procedure == procLookup {
		r.Handle = d.Opaque(maxHandle)
		r.Obj, r.Dir = d.postOp(), d.postOp()
		return
	}
	r.Obj = d.postOp()
	switch procedure {
	case procAccess:
		r.Access = d.Uint32()
	case procReadlink:
		r.Data = d.Opaque(4096)
	case procRead:
		n := d.Uint32()
		r.EOF = d.Bool()
		if r.Data = d.Opaque(maxTCP); len(r.Data) != int(n) {
			d.Fixed(1 << 30) // makes it bad
		}
	case procReaddir, procReaddirplus:
		d.entries(procedure == procReaddirplus, r)
	case procFsstat:
		r.Words = []uint64{d.Uint64(), d.Uint64(), d.Uint64(), d.Uint64(), d.Uint64(), d.Uint64(), uint64(d.Uint32())}
	case procFsinfo:
		for range 7 {
			r.Words = append(r.Words, uint64(d.Uint32()))
		}
		r.Words = append(r.Words, d.Uint64(), d.Uint64(), uint64(d.Uint32()))
	case procPathconf:
		r.Words = []uint64{uint64(d.Uint32()), uint64(d.Uint32()), uint64(d.Uint32()), uint64(d.Uint32()), uint64(d.Uint32()), uint64(d.Uint32())}
	}
}

func (d *resultReader) entries(plus bool, r *results) {
	r.Verifier = d.Uint64()
	for d.Bool() {
		e := entry{FileID: d.Uint64(), Name: string(d.Opaque(maxName)), Cookie: d.Uint64()}
		if plus {
			e.Attr = d.postOp()
			if d.Bool() {
				e.Handle = d.Opaque(maxHandle)
			}
		}
		r.Entries = append(r.Entries, e)
	}
	r.EOF = d.Bool()
}

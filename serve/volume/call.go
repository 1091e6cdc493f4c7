package volume

import (
	"strings"

	"rhizome/serve/nfs"
	"rhizome/serve/rpc"
)

// request is one NFS call on an object of an export.
type request struct {
	v    *Volumes
	x    *export
	call *rpc.Call
	out  *rpc.Reply
	// args are what follows the handle.
	args rpc.Decoder
	who  identity

	obj  object
	attr attr
}

// changing are the procedures whose second run would answer otherwise than the
// first: their replies are kept for clients that ask again.
var changing = [procCount]bool{
	procSetattr: true, procCreate: true, procMkdir: true, procSymlink: true, procMknod: true,
	procRemove: true, procRmdir: true, procRename: true, procLink: true,
}

// Call serves one NFSv3 call.
func (v *Volumes) Call(c *rpc.Call, out *rpc.Reply) rpc.Status {
	if c.Procedure >= procCount {
		return rpc.ProcUnavail
	}
	d := rpc.NewDecoder(c.Args)
	h := d.Opaque(maxHandle)
	if !d.Ok() {
		return rpc.GarbageArgs
	}
	// Strangers have no replies worth keeping.
	if _, known := v.config.Nodes.ByAddr(c.Peer.Remote.Addr()); !known || !changing[c.Procedure] {
		return v.serve(h, d, c, out)
	}
	return v.replays.once(c, out, func(fresh *rpc.Reply) rpc.Status { return v.serve(h, d, c, fresh) })
}

func (v *Volumes) serve(h []byte, args rpc.Decoder, c *rpc.Call, out *rpc.Reply) rpc.Status {
	r := request{v: v, call: c, out: out, args: args, who: identify(c)}
	var err error
	if r.x, err = v.find(h, c.Peer.Remote.Addr()); err != nil {
		v.refuse(c, err)
		fail(c.Procedure, toStatus(err), out)
		return rpc.Success
	}
	defer r.x.leave()
	if r.obj, r.attr, err = r.x.object(h); err != nil {
		v.trouble(&r, err)
		fail(c.Procedure, toStatus(err), out)
		return rpc.Success
	}
	defer r.obj.close()
	return r.serve()
}

func (r *request) serve() rpc.Status {
	switch r.call.Procedure {
	case procGetattr:
		return r.getattr()
	case procSetattr:
		return r.setattr()
	case procLookup:
		return r.lookup()
	case procAccess:
		return r.access()
	case procReadlink:
		return r.readlink()
	case procRead:
		return r.read()
	case procWrite:
		return r.write()
	case procCreate, procMkdir, procSymlink, procMknod:
		return r.make()
	case procRemove, procRmdir:
		return r.remove()
	case procRename:
		return r.rename()
	case procLink:
		return r.link()
	case procReaddir, procReaddirplus:
		return r.readdir()
	case procFsstat:
		return r.fsstat()
	case procFsinfo:
		return r.fsinfo()
	case procPathconf:
		return r.pathconf()
	case procCommit:
		return r.commit()
	}
	return rpc.ProcUnavail
}

func fail(procedure uint32, st status, out *rpc.Reply) { nfs.Refuse(procedure, uint32(st), out) }

// fail answers a call that changed nothing, with the object's attributes.
func (r *request) fail(st status) rpc.Status {
	r.out.Uint32(uint32(st))
	postOps, wccs := nfs.FailureShape(r.call.Procedure)
	for range postOps {
		r.postOp(&r.attr)
	}
	for i := range wccs {
		// The first is the object's, but for LINK, where it is the directory's.
		if i == 0 && postOps == 0 {
			appendWcc(r.out, &r.attr, &r.attr, r.x.fsid)
		} else {
			appendWcc(r.out, nil, nil, 0)
		}
	}
	return rpc.Success
}

func (r *request) failed(err error) rpc.Status {
	r.v.trouble(r, err)
	return r.fail(toStatus(err))
}

func (r *request) postOp(a *attr) { appendPostOp(r.out, a, r.x.fsid) }

// after gives the attributes that an object has now, for the reply, or nil.
func after(o object) *attr {
	a, err := o.attr()
	if err != nil {
		return nil
	}
	return &a
}

// appendHandle appends nfs_fh3.
func (r *request) appendHandle(o object) { r.out.Opaque(r.x.handle(o)) }

// name reads a filename3.
func (r *request) name() string { return string(r.args.Opaque(maxPath)) }

// checkName decides whether a name can be one in a directory at all. "." and
// ".." are names to LOOKUP only.
func checkName(name string) status {
	switch {
	case len(name) > maxName:
		return statusNameTooLong
	case name == "", strings.ContainsAny(name, "/\x00"):
		return statusAcces
	}
	return statusOK
}

func isDots(name string) bool { return name == "." || name == ".." }

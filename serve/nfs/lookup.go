package nfs

import (
	"bytes"
	"unsafe"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// getattr is GETATTR (RFC 1813, 3.3.1).
func (r *request) getattr() rpc.Status {
	r.called(r.file)
	r.out.Uint32(uint32(ok))
	appendAttr(r.out, &r.attr, r.fsid)
	return rpc.Success
}

// access is ACCESS (RFC 1813, 3.3.4).
func (r *request) access() rpc.Status {
	asked := r.args.Uint32()
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	r.called(r.file)
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.Uint32(granted(&r.who, &r.attr, asked))
	return rpc.Success
}

// lookup is LOOKUP (RFC 1813, 3.3.3).
func (r *request) lookup() rpc.Status {
	name := r.args.Opaque(maxPath)
	if !r.args.Ok() {
		return rpc.GarbageArgs
	}
	if st := r.checkLookup(name); st != ok {
		return r.fail(st)
	}
	// The name is used during the call only: a copy would be the one
	// allocation of the call.
	file, err := r.child(unsafe.String(unsafe.SliceData(name), len(name)))
	if err != nil {
		r.searched(r.file)
		return r.fail(toStatus(err))
	}
	attr, err := r.fs.Attr(file)
	if err != nil {
		return r.fail(toStatus(err))
	}
	r.called(file)
	r.out.Uint32(uint32(ok))
	r.appendHandle(file)
	appendPostOp(r.out, &attr, r.fsid)
	appendPostOp(r.out, &r.attr, r.fsid)
	if len(name) == len(initName) && !r.known.inited.Load() && string(name) == initName {
		r.sawInit()
	}
	return rpc.Success
}

// called and searched count a call where somebody counts.
func (r *request) called(f rootfs.File) {
	if r.meter != nil {
		r.meter.Called(f)
	}
}

func (r *request) searched(dir rootfs.File) {
	if r.meter != nil {
		r.meter.Searched(dir)
	}
}

// maxPath is the longest name or path in bytes that is read at all.
const maxPath = 4096

// checkLookup decides what can be said before the directory is searched.
func (r *request) checkLookup(name []byte) status {
	switch {
	case r.attr.Kind != rootfs.Dir:
		return errNotDir
	case allowed(&r.who, &r.attr)&mayExec == 0:
		return errAcces
	case len(name) > maxName:
		return errNameTooLong
	case len(name) == 0, bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return errAcces
	}
	return ok
}

func (r *request) child(name string) (rootfs.File, error) {
	switch name {
	case ".":
		return r.file, nil
	case "..":
		return r.fs.Parent(r.file)
	}
	return r.fs.Lookup(r.file, name)
}

// appendHandle appends nfs_fh3.
func (r *request) appendHandle(f rootfs.File) { appendHandle(r.out, r.fs, f) }

func appendHandle(out *rpc.Reply, fsys FS, f rootfs.File) {
	mark := out.Mark()
	out.Uint32(0)
	n := out.AppendFunc(func(b []byte) []byte { return fsys.AppendHandle(b, f) })
	out.SetUint32(mark, uint32(n))
	out.Pad(n)
}

// initName is the last part of the first program that a kernel runs.
const initName = "init"

// sawInit tells that the kernel is up: it looks for its first program.
func (r *request) sawInit() {
	if r.known.inited.CompareAndSwap(false, true) {
		r.s.events.Send(boot.Event{Time: r.s.now(), Kind: boot.NFSInit, Addr: r.call.Peer.Remote.Addr(), Digest: r.fs.Digest()})
	}
}

// readlink is READLINK (RFC 1813, 3.3.5).
func (r *request) readlink() rpc.Status {
	if r.attr.Kind != rootfs.Symlink {
		return r.fail(errInval)
	}
	target, err := r.fs.Readlink(r.file)
	if err != nil {
		return r.fail(toStatus(err))
	}
	r.called(r.file)
	r.out.Uint32(uint32(ok))
	appendPostOp(r.out, &r.attr, r.fsid)
	r.out.String(target)
	return rpc.Success
}

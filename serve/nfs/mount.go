package nfs

import (
	"cmp"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"rhizome/serve/boot"
	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// MountProgram is MOUNT's number, and MountPort the port by custom.
const (
	MountProgram = 100005
	MountPort    = 20048
)

// The procedures of MOUNT (RFC 1813, 5.2; the same in v1).
const (
	mntNull = iota
	mntMnt
	mntDump
	mntUmnt
	mntUmntall
	mntExport
)

// mountstat3 (RFC 1813, 5.1.5).
const (
	mntOK          = 0
	mntNoEnt       = 2
	mntAcces       = 13
	mntNotDir      = 20
	mntInval       = 22
	mntNameTooLong = 63
	mntServerFault = 10006
)

// mntPathLen is the longest path in bytes (MNTPATHLEN).
const mntPathLen = 1024

// maxMounts is how many mounts of one client are listed.
const maxMounts = 64

// mountProgram answers MOUNT calls.
type mountProgram struct{ s *Server }

// Serve answers one MOUNT call, in a goroutine of its own: an export may have
// to be opened first.
func (m mountProgram) Serve(c *rpc.Call, out *rpc.Reply) rpc.Status {
	if c.Procedure == mntNull {
		return rpc.Success
	}
	if c.Procedure > mntExport {
		return rpc.ProcUnavail
	}
	if !c.MayBlock {
		return rpc.WouldBlock
	}
	switch c.Procedure {
	case mntMnt:
		return m.s.mnt(c, out)
	case mntDump:
		m.s.dump(c, out)
	case mntUmnt:
		return m.s.umnt(c)
	case mntUmntall:
		m.s.forgetMounts(c, "")
	case mntExport:
		m.s.exportList(c, out)
	}
	return rpc.Success
}

// mnt is MNT (RFC 1813, 5.2.1).
func (s *Server) mnt(c *rpc.Call, out *rpc.Reply) rpc.Status {
	d := rpc.NewDecoder(c.Args)
	dir := string(d.Opaque(maxPath))
	if !d.Ok() {
		return rpc.GarbageArgs
	}
	handle, digest, err := s.mount(dir, c)
	if err != nil {
		s.refuseMount(dir, c, err)
		out.Uint32(mountStatus(err))
		return rpc.Success
	}
	s.mounted(dir, digest, c)
	appendMounted(out, c.Version, handle)
	return rpc.Success
}

// appendMounted appends fhstatus: in v1 the handle has 32 bytes and no length,
// in v3 flavors follow. AUTH_SYS comes first, for BSD clients take AUTH_NONE
// for a refusal.
func appendMounted(out *rpc.Reply, version uint32, handle []byte) {
	if version == 1 {
		if len(handle) != 32 {
			out.Uint32(mntServerFault)
			return
		}
		out.Uint32(mntOK)
		out.Fixed(handle)
		return
	}
	out.Uint32(mntOK)
	out.Opaque(handle)
	out.Uint32(2)
	out.Uint32(rpc.AuthSys)
	out.Uint32(rpc.AuthNone)
}

var errPathTooLong = errors.New("the path is longer than 1024 bytes")

// mount gives the root handle of a path, and the digest of the image that is
// mounted there, if it is one.
func (s *Server) mount(dir string, c *rpc.Call) (handle []byte, digest string, err error) {
	if len(dir) > mntPathLen {
		return nil, "", errPathTooLong
	}
	if strings.IndexByte(dir, 0) >= 0 || !strings.HasPrefix(dir, "/") {
		return nil, "", fs.ErrInvalid
	}
	dir = path.Clean(dir)
	for _, b := range s.backends {
		if strings.HasPrefix(dir+"/", b.Prefix) {
			if handle, err = b.Backend.Mount(dir, c); err == nil {
				s.welcome(c.Peer.Remote.Addr())
			}
			return handle, "", err
		}
	}
	return s.mountView(dir, c)
}

func (s *Server) mountView(dir string, c *rpc.Call) ([]byte, string, error) {
	export, below := splitExport(dir)
	fsys, err := s.exports.Export(export, c.Peer.Remote.Addr())
	if err != nil {
		return nil, "", err
	}
	root := fsys.Root()
	if below != "" {
		if root, err = resolveDir(fsys, below); err != nil {
			return nil, "", err
		}
	}
	s.welcome(c.Peer.Remote.Addr())
	return fsys.AppendHandle(nil, root), fsys.Digest(), nil
}

// splitExport parts a clean path into the export, its first two components,
// and what lies below it: a directory of the view.
func splitExport(dir string) (export, below string) {
	parts := strings.SplitN(dir, "/", 4)
	if len(parts) < 4 {
		return dir, ""
	}
	return "/" + parts[1] + "/" + parts[2], "/" + parts[3]
}

func resolveDir(fsys FS, name string) (rootfs.File, error) {
	f, err := fsys.Resolve(name)
	if err != nil {
		return f, err
	}
	a, err := fsys.Attr(f)
	if err == nil && a.Kind != rootfs.Dir {
		err = rootfs.ErrNotDir
	}
	return f, err
}

func mountStatus(err error) uint32 {
	switch {
	case errors.Is(err, errPathTooLong):
		return mntNameTooLong
	case errors.Is(err, fs.ErrNotExist):
		return mntNoEnt
	case errors.Is(err, fs.ErrPermission):
		return mntAcces
	case errors.Is(err, rootfs.ErrNotDir):
		return mntNotDir
	case errors.Is(err, fs.ErrInvalid):
		return mntInval
	}
	return mntServerFault
}

// refuseMount tells who was refused what. The path comes from the network: it
// is quoted and cut.
func (s *Server) refuseMount(dir string, c *rpc.Call, err error) {
	known := s.session(c.Peer)
	known.counters.Errors.Add(1)
	s.tell(boot.Event{Kind: boot.MountRefused, Addr: c.Peer.Remote.Addr(),
		File: dir[:min(len(dir), 256)], Error: err.Error(), Detail: "over " + c.Peer.Transport.String()})
}

// mounted notes a mount and tells of it. FreeBSD's loader mounts anew for
// every file it opens, some sixty times in a boot: the same mount again soon
// after is no news.
func (s *Server) mounted(dir, digest string, c *rpc.Call) {
	known := s.session(c.Peer)
	known.counters.Mounts.Add(1)
	s.rememberMount(known, dir)
	now := s.now()
	path := known.lastMountPath.Swap(&dir)
	last := known.lastMount.Swap(now.UnixNano())
	if path != nil && *path == dir && now.UnixNano()-last < int64(quiet) {
		return
	}
	known.called.Store(false)
	known.inited.Store(false)
	s.events.Send(boot.Event{Time: now, Kind: boot.MountDone, Addr: c.Peer.Remote.Addr(), Digest: digest, File: dir,
		Detail: "over " + c.Peer.Transport.String()})
}

func (s *Server) rememberMount(known *session, dir string) {
	if known == &s.strangers {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(known.mounts) < maxMounts {
		known.mounts[dir] = struct{}{}
	}
}

// umnt is UMNT (RFC 1813, 5.2.3), which always succeeds.
func (s *Server) umnt(c *rpc.Call) rpc.Status {
	d := rpc.NewDecoder(c.Args)
	dir := string(d.Opaque(maxPath))
	if !d.Ok() {
		return rpc.GarbageArgs
	}
	s.forgetMounts(c, dir)
	return rpc.Success
}

// forgetMounts takes one of a client's mounts off the list, or all.
func (s *Server) forgetMounts(c *rpc.Call, dir string) {
	known := s.session(c.Peer)
	if known == &s.strangers {
		return
	}
	s.mu.Lock()
	_, had := known.mounts[dir]
	if dir == "" {
		had = len(known.mounts) > 0
		clear(known.mounts)
	}
	delete(known.mounts, dir)
	s.mu.Unlock()
	if had {
		s.events.Send(boot.Event{Time: s.now(), Kind: boot.MountUnmount, Addr: c.Peer.Remote.Addr(), File: dir})
	}
}

// dumpLimit is the size in bytes at which the lists of mounts and of exports
// end: over UDP they must fit a datagram.
func dumpLimit(t rpc.Transport) int {
	if t == rpc.UDP {
		return maxUDP
	}
	return maxTCP
}

// dump is DUMP (RFC 1813, 5.2.2): the client's own mounts; those of others are
// not its business.
func (s *Server) dump(c *rpc.Call, out *rpc.Reply) {
	addr := c.Peer.Remote.Addr().String()
	for _, dir := range s.mountsOf(s.session(c.Peer)) {
		if out.Len() > dumpLimit(c.Peer.Transport) {
			break
		}
		out.Bool(true)
		out.String(addr)
		out.String(dir)
	}
	out.Bool(false)
}

func (s *Server) mountsOf(known *session) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var dirs []string
	for dir := range known.mounts {
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	return dirs
}

// exportList is EXPORT (RFC 1813, 5.2.5).
func (s *Server) exportList(c *rpc.Call, out *rpc.Reply) {
	list := slices.Clone(s.exports.List(c.Peer.Remote.Addr()))
	slices.SortFunc(list, func(a, b Export) int { return cmp.Compare(a.Path, b.Path) })
	for _, e := range list {
		if out.Len() > dumpLimit(c.Peer.Transport) {
			break
		}
		out.Bool(true)
		out.String(e.Path)
		for _, g := range e.Groups {
			out.Bool(true)
			out.String(g)
		}
		out.Bool(false)
	}
	out.Bool(false)
}

package volume

import (
	"slices"

	"rhizome/serve/rpc"
)

// Permission bits within one class of a mode.
const (
	mayRead  = 4
	mayWrite = 2
	mayExec  = 1
)

// The bits of ACCESS (RFC 1813, 3.3.4).
const (
	accessRead    = 0x01
	accessLookup  = 0x02
	accessModify  = 0x04
	accessExtend  = 0x08
	accessDelete  = 0x10
	accessExecute = 0x20
)

// identity is who a call counts as.
type identity struct {
	uid, gid uint32
	groups   []uint32
}

// identify believes the credential of a call from a port that only root can use:
// the node's kernel, which says for whom it asks. Any user of the node could send
// one from another port, and claim to be root, or whoever has a secret.
func identify(c *rpc.Call) identity {
	if !c.Peer.Reserved() {
		return identity{uid: rpc.Nobody, gid: rpc.Nobody}
	}
	return identity{c.Cred.UID, c.Cred.GID, c.Cred.Groups()}
}

func (id *identity) root() bool { return id.uid == 0 }

func (id *identity) in(gid uint32) bool { return id.gid == gid || slices.Contains(id.groups, gid) }

// allowed gives the permission bits (rwx) that the mode gives id. Root may all
// but run what nobody may run.
func (id *identity) allowed(a *attr) uint32 {
	switch {
	case id.root():
		if a.kind == kindDir || a.mode&0o111 != 0 {
			return 7
		}
		return mayRead | mayWrite
	case id.uid == a.uid:
		return a.mode >> 6 & 7
	case id.in(a.gid):
		return a.mode >> 3 & 7
	}
	return a.mode & 7
}

func (id *identity) may(a *attr, want uint32) bool { return id.allowed(a)&want == want }

// granted answers ACCESS.
func (id *identity) granted(a *attr, asked uint32) uint32 {
	perm, grant := id.allowed(a), uint32(0)
	if perm&mayRead != 0 {
		grant |= accessRead
	}
	if perm&mayWrite != 0 {
		grant |= accessModify | accessExtend
		if a.kind == kindDir {
			grant |= accessDelete
		}
	}
	if perm&mayExec != 0 {
		if a.kind == kindDir {
			grant |= accessLookup
		} else {
			grant |= accessExecute
		}
	}
	return grant & asked
}

// mayReadBody decides READ as BSD's and Linux's servers do: whoever may run a
// file must be able to page it in, and the owner goes on reading what it
// opened before a chmod.
func (id *identity) mayReadBody(a *attr) bool {
	return id.uid == a.uid || id.allowed(a)&(mayRead|mayExec) != 0
}

// mayWriteBody decides WRITE; the owner goes on writing what it opened, or
// made, without a right to write: open(2) with mode 0444 and O_CREAT.
func (id *identity) mayWriteBody(a *attr) bool {
	return id.uid == a.uid || id.may(a, mayWrite)
}

// mayUnlink decides whether a name may be taken out of a directory: by whoever
// may write there, but in a sticky directory only by the owner of the file or
// of the directory (inode(7), "sticky bit").
func (id *identity) mayUnlink(dir, victim *attr) bool {
	if !id.may(dir, mayWrite|mayExec) {
		return false
	}
	return dir.mode&modeSticky == 0 || id.root() || id.uid == victim.uid || id.uid == dir.uid
}

// checkSet decides SETATTR, as chmod(2), chown(2), truncate(2) and
// utimensat(2) do: the status, or statusOK.
func (id *identity) checkSet(a *attr, s *setAttrs) status {
	owner := id.root() || id.uid == a.uid
	switch {
	case s.hasMode && !owner,
		(s.ownAtime || s.ownMtime) && !owner,
		s.hasUID && !id.root() && (s.uid != a.uid || !owner),
		s.hasGID && !id.root() && (!owner || s.gid != a.gid && !id.in(s.gid)):
		return statusPerm
	case (s.hasAtime || s.hasMtime) && !owner && !id.may(a, mayWrite),
		s.hasSize && !id.mayWriteBody(a):
		return statusAcces
	case s.hasSize && a.kind == kindDir:
		return statusIsDir
	case s.hasSize && a.kind != kindRegular:
		return statusInval
	case s.hasSize && s.size > maxFileSize:
		return statusFBig
	}
	return statusOK
}

// sanitize takes setuid and setgid off where a change of owner or a stranger's
// truncation must (chown(2), "Notes"), and setgid where the caller is not in
// the group.
func (id *identity) sanitize(a *attr, s *setAttrs) {
	if s.hasMode && !id.root() && a.kind != kindDir && !id.in(a.gid) {
		s.mode &^= modeSetgid
	}
	chowned := a.kind != kindDir && (s.hasUID || s.hasGID)
	if !chowned && (!s.hasSize || id.root()) {
		return
	}
	if !s.hasMode {
		if a.mode&(modeSetuid|modeSetgid) == 0 {
			return
		}
		s.hasMode, s.mode = true, a.mode
	}
	s.mode = plainMode(s.mode)
}

// plainMode takes setuid off a mode, and setgid where it means what it says: on
// a file that the group may not run it asks for mandatory locks instead.
func plainMode(mode uint32) uint32 {
	mode &^= modeSetuid
	if mode&0o010 != 0 {
		mode &^= modeSetgid
	}
	return mode
}

// newOwner is who a new object in dir belongs to, and the mode it gets: a
// directory's setgid bit passes its group on (inode(7), "set-group-ID bit").
func (id *identity) newOwner(dir *attr, k kind, s *setAttrs) (uid, gid, mode uint32) {
	uid, gid, mode = id.uid, id.gid, s.mode
	if !s.hasMode {
		mode = 0o666
		if k == kindDir {
			mode = 0o777
		}
		mode &^= 0o022
	}
	if dir.mode&modeSetgid != 0 {
		gid = dir.gid
		if k == kindDir {
			mode |= modeSetgid
		}
	}
	if id.root() && s.hasUID {
		uid = s.uid
	}
	if s.hasGID && (id.root() || id.in(s.gid)) {
		gid = s.gid
	}
	if k != kindDir && !id.root() && !id.in(gid) {
		mode &^= modeSetgid
	}
	return uid, gid, mode
}

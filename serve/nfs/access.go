package nfs

import (
	"slices"

	"rhizome/serve/rootfs"
	"rhizome/serve/rpc"
)

// Permission bits within one class of a mode.
const (
	mayRead = 4
	mayExec = 1
)

// The bits of ACCESS (RFC 1813, 3.3.4). Those that change something are never
// granted here.
const (
	accessRead    = 0x01
	accessLookup  = 0x02
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

// allowed gives the permission bits (rwx) that the mode gives id. Root may all
// but run what nobody may run.
func allowed(id *identity, a *rootfs.Attr) uint32 {
	switch {
	case id.uid == 0:
		if a.Kind == rootfs.Dir || a.Mode&0o111 != 0 {
			return 7
		}
		return 6
	case id.uid == a.UID:
		return a.Mode >> 6 & 7
	case id.gid == a.GID || slices.Contains(id.groups, a.GID):
		return a.Mode >> 3 & 7
	}
	return a.Mode & 7
}

// granted answers ACCESS.
func granted(id *identity, a *rootfs.Attr, asked uint32) uint32 {
	perm, grant := allowed(id, a), uint32(0)
	if perm&mayRead != 0 {
		grant |= accessRead
	}
	if perm&mayExec != 0 {
		if a.Kind == rootfs.Dir {
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
func mayReadBody(id *identity, a *rootfs.Attr) bool {
	return id.uid == a.UID || allowed(id, a)&(mayRead|mayExec) != 0
}

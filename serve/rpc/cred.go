package rpc

// Authentication flavors (RFC 5531, 8.2).
const (
	AuthNone uint32 = 0
	AuthSys  uint32 = 1
)

// Nobody is the user and group of a caller without a credential.
const Nobody = 65534

// maxAuth is the largest credential or verifier in bytes (RFC 5531, 8.2).
const maxAuth = 400

// maxMachineName is the longest machinename of AUTH_SYS (RFC 5531, appendix A).
const maxMachineName = 255

// maxGroups is how many groups AUTH_SYS carries beside gid (RFC 5531, appendix A).
const maxGroups = 16

// Cred is who the caller claims to be.
type Cred struct {
	Flavor   uint32
	UID, GID uint32
	groups   [maxGroups]uint32
	ngroups  int
}

// Groups are the groups beside GID.
func (c *Cred) Groups() []uint32 { return c.groups[:c.ngroups] }

// InGroup tells whether gid is one of the caller's groups.
func (c *Cred) InGroup(gid uint32) bool {
	if c.GID == gid {
		return true
	}
	for _, g := range c.groups[:c.ngroups] {
		if g == gid {
			return true
		}
	}
	return false
}

// NewSysCred is an AUTH_SYS credential; groups beyond the sixteenth are left out.
func NewSysCred(uid, gid uint32, groups ...uint32) Cred {
	c := Cred{Flavor: AuthSys, UID: uid, GID: gid}
	c.ngroups = copy(c.groups[:], groups)
	return c
}

// decode reads a credential. It tells whether it is one of a flavor that is
// served and keeps the bounds of the RFC; the decoder's own state says whether
// it was there at all.
func (c *Cred) decode(d *Decoder) bool {
	c.Flavor, c.UID, c.GID, c.ngroups = d.Uint32(), Nobody, Nobody, 0
	body := d.Opaque(maxAuth)
	switch {
	case !d.Ok():
		return false
	case c.Flavor == AuthNone:
		return true
	case c.Flavor == AuthSys:
		return c.decodeSys(body)
	}
	return false
}

// decodeSys reads authsys_parms (RFC 5531, appendix A).
func (c *Cred) decodeSys(body []byte) bool {
	d := NewDecoder(body)
	d.Uint32() // stamp
	d.Opaque(maxMachineName)
	c.UID, c.GID = d.Uint32(), d.Uint32()
	n := d.Uint32()
	if !d.Ok() || n > maxGroups {
		return false
	}
	for i := range c.groups[:n] {
		c.groups[i] = d.Uint32()
	}
	c.ngroups = int(n)
	return d.Ok()
}

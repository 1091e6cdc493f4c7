package volume

// What the record of an object says of its own; all else is still the image's.
const (
	ownBody  = 1 << iota // content, in the file bodies/ID; none is empty
	ownMode              // permission bits
	ownOwner             // uid and gid
	ownTimes             // atime and mtime
)

// record is what the node changed of an object of the image, or all of an
// object that the node made.
type record struct {
	Kind  kind   `json:"kind"`
	Own   uint8  `json:"own,omitempty"`
	Mode  uint32 `json:"mode,omitempty"`
	UID   uint32 `json:"uid,omitempty"`
	GID   uint32 `json:"gid,omitempty"`
	Nlink uint32 `json:"nlink,omitempty"`
	// Parent is the directory that a directory lies in.
	Parent       uint64 `json:"parent,omitempty"`
	Major        uint32 `json:"major,omitempty"`
	Minor        uint32 `json:"minor,omitempty"`
	Target       []byte `json:"target,omitempty"`
	Atime, Mtime moment
	Ctime        moment
	// Base is the fingerprint of what the image had when the node first
	// changed it, and then of what it has now; empty for the node's own.
	Base string `json:"base,omitempty"`
	// Gone is set for an object of the image that has no name any more.
	Gone bool `json:"gone,omitempty"`
	// Clash says how a later image changed the same.
	Clash string `json:"clash,omitempty"`
}

func (r *record) has(bits uint8) bool { return r.Own&bits != 0 }

// entry is what the node made of a name in a directory.
type entry struct {
	// ID is the object; 0 hides the image's.
	ID uint64 `json:"id,omitempty"`
	// Base is the fingerprint of what the image has by this name, if anything
	// that is another object.
	Base string `json:"base,omitempty"`
	// Clash says how a later image changed what it has by this name.
	Clash string `json:"clash,omitempty"`
}

// change is one step of a transaction; one of its parts is set.
type change struct {
	// Put and Drop are about the record of the object ID.
	ID   uint64  `json:"o,omitempty"`
	Put  *record `json:"put,omitempty"`
	Drop bool    `json:"drop,omitempty"`
	// Dir, Name and Entry set a name, or with Clear leave it to the image.
	Dir   uint64 `json:"d,omitempty"`
	Name  []byte `json:"n,omitempty"`
	Entry *entry `json:"e,omitempty"`
	Clear bool   `json:"clear,omitempty"`
	// Next is the first number that no object had yet.
	Next uint64 `json:"next,omitempty"`
	// Image is the manifest that the changes lie over now, and Path its folder.
	Image string `json:"image,omitempty"`
	Path  string `json:"path,omitempty"`
	// Lease is one whose commit of a region, Commit, this transaction is; with
	// no Commit, its holder was told.
	Lease  string `json:"lease,omitempty"`
	Commit string `json:"commit,omitempty"`
}

// records are all that a node changed, in memory.
type records struct {
	objects map[uint64]*record
	names   map[uint64]map[string]entry
	next    uint64
	image   string
	folder  string
	// done are the commits whose holders may ask yet, by lease.
	done map[string]string
}

func newRecords() *records {
	return &records{objects: map[uint64]*record{}, names: map[uint64]map[string]entry{}, next: 1, done: map[string]string{}}
}

// apply carries out a transaction.
func (r *records) apply(tx []change) {
	for _, c := range tx {
		switch {
		case c.Put != nil:
			r.objects[c.ID] = c.Put
			if c.ID < fromImage {
				r.next = max(r.next, c.ID+1)
			}
		case c.Drop:
			delete(r.objects, c.ID)
			delete(r.names, c.ID)
		case c.Dir != 0:
			r.setName(c)
		case c.Next != 0:
			r.next = max(r.next, c.Next)
		case c.Image != "" || c.Path != "":
			r.image, r.folder = c.Image, c.Path
		case c.Commit != "":
			r.done[c.Lease] = c.Commit
		case c.Lease != "":
			delete(r.done, c.Lease)
		}
	}
}

func (r *records) setName(c change) {
	if c.Entry == nil {
		delete(r.names[c.Dir], string(c.Name))
		return
	}
	if r.names[c.Dir] == nil {
		r.names[c.Dir] = map[string]entry{}
	}
	r.names[c.Dir][string(c.Name)] = *c.Entry
}

// snapshot is a transaction that makes the records anew.
func (r *records) snapshot() []change {
	tx := []change{{Next: r.next}, {Image: r.image, Path: r.folder}}
	for id, rec := range r.objects {
		tx = append(tx, change{ID: id, Put: rec})
	}
	for dir, names := range r.names {
		for name, e := range names {
			tx = append(tx, change{Dir: dir, Name: []byte(name), Entry: &e})
		}
	}
	for lease, commit := range r.done {
		tx = append(tx, change{Lease: lease, Commit: commit})
	}
	return tx
}

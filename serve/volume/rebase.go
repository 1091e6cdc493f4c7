package volume

import (
	"maps"
	"slices"

	"rhizome/serve/rootfs"
)

// rebase lays the changes over another version of the image, and tells which
// of them clash: the image changed the same. The node's stay, all of them.
func (o *overlay) rebase(view *rootfs.View) ([]Change, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	base, err := newBaseIndex(view, o.path)
	if err != nil {
		return nil, err
	}
	former := o.records.image
	o.base = base
	o.lists.forgetAll()
	if former == view.Digest() {
		return nil, nil
	}
	tx := o.clashes()
	tx = append(tx, change{Image: view.Digest(), Path: o.path})
	if err := o.commit(tx); err != nil {
		return nil, err
	}
	if err := o.journal.sync(o.journal.size.Load()); err != nil {
		return nil, err
	}
	clashing := map[uint64]bool{}
	for _, c := range tx {
		if c.Put != nil && c.Put.Clash != "" {
			clashing[c.ID] = true
		}
	}
	var fresh []Change
	for _, c := range o.records.changes() {
		if c.Clash != "" && (clashing[c.id] || entryIn(tx, c)) {
			fresh = append(fresh, c)
		}
	}
	return fresh, nil
}

func entryIn(tx []change, c Change) bool {
	for _, step := range tx {
		if step.Dir == c.dir && step.Dir != 0 && string(step.Name) == c.name && step.Entry != nil && step.Entry.Clash != "" {
			return true
		}
	}
	return false
}

// clashes are the steps that note what the image changed since.
func (o *overlay) clashes() (tx []change) {
	for _, id := range slices.Sorted(maps.Keys(o.objects)) {
		rec := o.objects[id]
		ref, inImage := o.base.find(id)
		now := ""
		if inImage {
			now = o.base.fingerprint(ref)
		}
		switch {
		case rec.Gone && !inImage:
			// Should a later image have it again, it is the image's.
			tx = append(tx, change{ID: id, Drop: true})
		case rec.Base != "" && !rec.Gone && now != rec.Base:
			tx = append(tx, o.clashOf(id, rec, now)...)
		}
	}
	for dir, names := range o.names {
		for name, e := range names {
			if now := o.hidden(dir, name, e.ID); now != e.Base {
				e.Clash, e.Base = clashText(e.Base, now), now
				if e.ID == 0 && now == "" {
					e.Clash = "" // both removed it
				}
				tx = append(tx, change{Dir: dir, Name: []byte(name), Entry: &e})
			}
		}
	}
	return tx
}

// clashOf notes how the image changed an object that has a record. Where the
// node changed nothing of the object itself, there is no clash.
func (o *overlay) clashOf(id uint64, rec *record, now string) []change {
	copied := *rec
	copied.Base = now
	s, err := o.state(id)
	bodyless := rec.Kind == kindRegular && !rec.has(ownBody)
	switch {
	case bodyless && (err != nil || !s.inImage):
		// The node kept the image's content, and the image has none any more.
		return o.abandon(id)
	case rec.has(ownBody | ownMode | ownOwner):
		copied.Clash = clashText(rec.Base, now)
	}
	return []change{{ID: id, Put: &copied}}
}

// abandon lets an object go that only the image had the content of.
func (o *overlay) abandon(id uint64) []change {
	tx := []change{{ID: id, Drop: true}}
	for dir, names := range o.names {
		for name, e := range names {
			if e.ID == id {
				tx = append(tx, change{Dir: dir, Name: []byte(name), Clear: true})
			}
		}
	}
	return tx
}

func clashText(before, now string) string {
	switch {
	case now == "":
		return "the image has it no more; the node's is kept"
	case before == "":
		return "the image has one too now; the node's is kept"
	}
	return "the image has another version now; the node's is kept"
}

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/doctor"
	"rhizome/registry/store"
	"rhizome/stages"

	"golang.org/x/sys/unix"
)

// checkHost looks at the store, the clock, what serve may take, and what a
// build needs.
func (p *patient) checkHost(ctx context.Context, frameCache int64) {
	p.add(p.storeFacts(ctx).Check())
	p.add(doctor.Clock{Now: p.now, Epoch: p.epoch, Record: p.newest()}.Check())
	if p.serves() {
		limits := doctor.Limits{Nodes: len(p.members), FrameCache: frameCache, Files: fileLimit()}
		limits.Available, limits.Bound = memoryRoom()
		p.add(limits.Check())
	}
	if p.recipe != nil && p.purpose != "serve" {
		p.checkBuild(ctx)
	}
}

func (p *patient) storeFacts(ctx context.Context) doctor.Store {
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return doctor.Store{Dir: p.dir, Unwritable: err}
	}
	near := nearest(dir)
	s := doctor.Store{Dir: dir, Missing: near != dir, Unwritable: writable(near), Disk: diskOf(near)}
	if info, err := os.Stat(near); err == nil {
		s.Mode = info.Mode()
	}
	if p.store == nil {
		return p.noStore(s)
	}
	s.Leftovers = p.store.Leftovers(p.now.Add(-time.Hour))
	if p.name == "" { // else it is about one image, and the rest is not in its way
		s.Dangling = p.dangling(ctx)
	}
	return s
}

// noStore adds why there is no store to look into. What else lies there is no
// store to be judged.
func (p *patient) noStore(s doctor.Store) doctor.Store {
	var none *store.NoStoreError
	if errors.As(p.unread, &none) && none.Holds == "" {
		p.term.note("doctor   %s", noStoreYet(none))
		return s
	}
	s.Unreadable = p.unread
	if info, err := os.Stat(s.Dir); none != nil || err == nil && !info.IsDir() {
		return doctor.Store{Dir: s.Dir, Unreadable: p.unread}
	}
	return s
}

// newest is the newest time that the store's records name.
func (p *patient) newest() (last time.Time) {
	if p.store == nil {
		return last
	}
	take := func(t time.Time) {
		if t.After(last) {
			last = t
		}
	}
	mounts, _ := p.store.Mounts() // what cannot be read has no time
	for _, m := range mounts {
		take(m.Since)
	}
	clusters, _ := p.store.Clusters()
	for _, c := range clusters {
		pins, err := p.store.Pins(c)
		if n := len(pins.History); err == nil && n > 0 {
			take(pins.History[n-1].Time)
		}
	}
	return last
}

// checkBuild looks for what the recipe's stages need of this machine.
func (p *patient) checkBuild(ctx context.Context) {
	programs, err := nodePrograms()
	if err != nil {
		p.add(doctor.Tools([]error{err}))
		return
	}
	p.add(doctor.Tools(stages.Lacks(ctx, p.recipe, programs)))
	forCache, forStore := doctor.Needs(p.recipe)
	for dir, need := range map[string]int64{p.cacheFolder(): forCache, p.dir: forStore} {
		if dir == "" {
			continue // a stage that wants it says so
		}
		p.add(doctor.Room{Dir: dir, Free: diskOf(nearest(dir)).Free, Need: need}.Check())
	}
}

// fileLimit is how many files a process may have open: Go raises the soft limit
// to the hard one by itself.
func fileLimit() uint64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return 0
	}
	return uint64(r.Max) // signed on FreeBSD
}

// serving lists who serves out of this store.
func (p *patient) serving() (all []doctor.Serving) {
	if p.store == nil {
		return nil
	}
	leases, _ := p.store.Leases() // what cannot be read is nobody's
	for _, l := range leases {
		if strings.HasPrefix(l.Purpose, servingPurpose) {
			all = append(all, doctor.Serving{PID: l.PID, Purpose: l.Purpose})
		}
	}
	return all
}

// servingPurpose begins what the lease of a serve says, before the name of what
// it serves.
const servingPurpose = "serving "

// diskOf is the file system that a folder is on; zero where it is not known.
func diskOf(dir string) doctor.Disk {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return doctor.Disk{}
	}
	return doctor.Disk{
		Free:   int64(st.Bavail) * int64(st.Bsize),     // other types on FreeBSD
		Total:  int64(st.Blocks) * int64(st.Bsize),     // other types on FreeBSD
		Inodes: st.Files, InodesFree: uint64(st.Ffree), // signed on FreeBSD
		ReadOnly: mountedReadOnly(&st),
	}
}

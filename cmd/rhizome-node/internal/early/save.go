package early

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"rhizome/serve/node/nodeapi"
)

// FreeBSD's script mounts and unpacks by itself, with the base's own programs: what
// it asks for is blobs as files, whole and verified.

// bundle reads the bundle's blob into a file. Where the link is slow there is a
// second answer when userland is up and the rest has come. That all went well is the
// script's to tell, which has still to mount it.
func (s *session) bundle(file string) {
	l, limit, err := s.beginFill(func(l nodeapi.Layer) int64 { return l.Size })
	switch {
	case l == nil:
		s.notBegun(err)
		return
	case limit < l.Size: // tarfs(5) takes it whole or not at all
		s.skip(fmt.Sprintf("there is memory for %s of the bundle's %s, and it is taken whole or not at all", mb(limit), mb(l.Size)))
		return
	}
	f := &saving{s: s, blob: s.blob(*l), file: file}
	s.patiently(f.blob, f, s.say)
}

// saving is a bundle on its way into a file.
type saving struct {
	s    *session
	blob *blob
	file string
}

func (f *saving) run() func() (state, message string) {
	err := f.blob.save(f.file)
	f.s.nfs.close()
	return func() (string, string) {
		if err != nil {
			return f.s.failed("precache", fmt.Errorf("going on without the bundle: %w", err))
		}
		return nodeapi.OK, f.s.nfs.note
	}
}

func (f *saving) slow() bool { return f.blob.slow() }

// begun has nothing for the boot: tarfs(5) mounts whole blobs.
func (f *saving) begun() (state, message string) {
	return nodeapi.Skipped, f.blob.pace() + ": going on in the background"
}

// layerFile reads one layer of a root in memory into a file: "NUMBER FILE", from 1.
// Before the first it looks at memory.
func (s *session) layerFile(question string) (state, message string) {
	number, file, _ := strings.Cut(question, " ")
	n, err := strconv.Atoi(number)
	switch {
	case s.server == nil || len(s.plan.Layers) == 0:
		err = errNoPlan
	case err != nil || n < 1 || n > len(s.plan.Layers):
		err = fmt.Errorf("the plan has no layer %q", number)
	case n == 1:
		err = s.enough()
	}
	if err != nil {
		return nodeapi.Failed, err.Error()
	}
	said := s.nfs.note
	if err := s.blob(s.plan.Layers[n-1]).save(file); err != nil {
		return nodeapi.Failed, fmt.Sprintf("layer %d of %d: %v", n, len(s.plan.Layers), err)
	}
	return nodeapi.OK, strings.TrimPrefix(s.nfs.note, said)
}

// save reads all of a blob into a file, and verifies it.
func (b *blob) save(file string) error {
	defer b.drop()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, b)
	if err == nil {
		err = b.verify(b.layer.Digest)
	}
	return errors.Join(err, f.Close())
}

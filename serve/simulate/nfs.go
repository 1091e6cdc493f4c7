package simulate

import (
	"fmt"
	"strings"
)

// Programs and the procedures that a boot calls (RFC 1833, section 3; RFC
// 1813).
const (
	portmapProgram, portmapPort = 100000, 111
	mountProgram, nfsProgram    = 100005, 100003

	getport, mnt                         = 3, 1
	getattr, lookup, access, read        = 1, 3, 4, 6
	fsinfo, pathconf                     = 19, 20
	readSize                             = 128 << 10
	wordsOfAttr                          = 21
	accessAll                     uint32 = 0x3f
)

// askPorts asks the portmapper where MOUNT and NFS are, as klibc's nfsmount
// does.
func (m *machine) askPorts() error {
	c, err := m.dial(portmapPort)
	if err != nil {
		return err
	}
	defer c.close()
	for _, program := range []uint32{mountProgram, nfsProgram} {
		const tcp = 6
		r, err := c.call(portmapProgram, 2, getport, xdr{}.word(program).word(3).word(tcp).word(0))
		if err != nil {
			return err
		}
		if port := r.word(); port != 2049 {
			return fmt.Errorf("program %d is said to be at port %d", program, port)
		}
	}
	return nil
}

// mountRoot mounts the node's own export, and lets go of the handle: read
// mounts once more, over the connection that it keeps.
func (m *machine) mountRoot() error {
	c, err := m.dial(2049)
	if err != nil {
		return err
	}
	defer c.close()
	_, err = m.root(c)
	return err
}

func (m *machine) root(c *conn) (string, error) {
	r, err := c.call(mountProgram, 3, mnt, xdr{}.opaque("/nodes/"+m.node.Name))
	if err != nil {
		return "", err
	}
	if status := r.word(); status != 0 {
		return "", fmt.Errorf("mounting /nodes/%s: status %d", m.node.Name, status)
	}
	return string(r.opaque()), nil
}

// read walks to every file of the plan and reads it. Folders are looked up
// once, as a kernel's name cache has it; every file costs LOOKUP, ACCESS and
// GETATTR besides its READs.
func (m *machine) read() error {
	c, err := m.dial(2049)
	if err != nil {
		return err
	}
	defer c.close()
	root, err := m.root(c)
	if err != nil {
		return err
	}
	s := &session{c, map[string]string{"": root}}
	for _, proc := range []uint32{fsinfo, pathconf} {
		if _, err := s.call(proc, xdr{}.opaque(root)); err != nil {
			return err
		}
	}
	for _, f := range m.plan.Files {
		if err := s.file(f); err != nil {
			return fmt.Errorf("reading %q: %w", f, err)
		}
	}
	return nil
}

// session is a mounted root.
type session struct {
	c *conn
	// dirs are the handles of folders by path.
	dirs map[string]string
}

func (s *session) call(proc uint32, args xdr) (*results, error) {
	r, err := s.c.call(nfsProgram, 3, proc, args)
	if err != nil {
		return nil, err
	}
	if status := r.word(); status != 0 {
		return nil, fmt.Errorf("NFS procedure %d: status %d", proc, status)
	}
	return r, nil
}

func (s *session) file(path string) error {
	h, err := s.handle(path)
	if err != nil {
		return err
	}
	if _, err := s.call(access, xdr{}.opaque(h).word(accessAll)); err != nil {
		return err
	}
	if _, err := s.call(getattr, xdr{}.opaque(h)); err != nil {
		return err
	}
	for off := uint64(0); ; {
		n, eof, err := s.readAt(h, off)
		if err != nil || eof {
			return err
		}
		off += n
	}
}

func (s *session) readAt(h string, off uint64) (n uint64, eof bool, err error) {
	r, err := s.call(read, xdr{}.opaque(h).double(off).word(readSize))
	if err != nil {
		return 0, false, err
	}
	if r.word() == 1 {
		r.take(4 * wordsOfAttr)
	}
	n, eof = uint64(r.word()), r.word() == 1
	if got := len(r.opaque()); r.short || uint64(got) != n || n == 0 && !eof {
		return 0, false, errShort
	}
	return n, eof, nil
}

// handle looks a path up, from the nearest folder that is known.
func (s *session) handle(path string) (string, error) {
	path = strings.TrimPrefix(path, "/")
	cut := max(strings.LastIndexByte(path, '/'), 0)
	dir, known := s.dirs[path[:cut]]
	if !known {
		var err error
		if dir, err = s.handle(path[:cut]); err != nil {
			return "", err
		}
		s.dirs[path[:cut]] = dir
	}
	r, err := s.call(lookup, xdr{}.opaque(dir).opaque(strings.TrimPrefix(path[cut:], "/")))
	if err != nil {
		return "", err
	}
	h := string(r.opaque())
	if r.short {
		return "", errShort
	}
	return h, nil
}

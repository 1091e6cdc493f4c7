package early

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
)

// getTries is how often in a row a file may fail to get a byte longer; the waits
// between them come to about two minutes.
const getTries = 12

// getter appends to a file what of a blob is not in it yet. The script compares
// digests.
type getter struct {
	ctx   context.Context
	get   func(ctx context.Context, path string, from int64, window int) (io.ReadCloser, error)
	nfs   *overNFS
	sleep func(context.Context, time.Duration) error
}

// getFile fetches URL to FILE, from a reserved port, and from EXPORT over NFS
// where HTTP does not give it: what is said of that goes to out.
func getFile(ctx context.Context, out io.Writer, args []string) error {
	c, err := agent.Find(agent.RunDir())
	if err != nil {
		return err
	}
	file, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	nfs := &overNFS{system: realSystem{}, export: args[2], dir: filepath.Join(agent.RunDir(), "blobs")}
	_ = nfs.system.Unmount(nfs.dir) // the script ends one that takes long, and begins again
	defer nfs.close()
	g := &getter{ctx: ctx, get: c.Get, nfs: nfs, sleep: sleep}
	if err := g.fetch(pathOf(args[0]), file); err != nil {
		return fmt.Errorf("fetching %q: %w", args[0], err)
	}
	if nfs.note != "" {
		fmt.Fprintln(out, nfs.note)
	}
	return nil
}

func (g *getter) fetch(address string, file *os.File) error {
	for tries := 0; ; {
		n, err := g.once(address, file, tries+1)
		if err == nil {
			return nil
		}
		if tries++; n > 0 {
			tries = 0
		}
		status := agent.Status(err)
		if status >= 400 && status < 500 || tries >= getTries {
			return err
		}
		if err := g.sleep(g.ctx, pause(tries)); err != nil {
			return err
		}
	}
}

// once is one try by HTTP, and where that is due by NFS. It tells by how many
// bytes the file grew.
func (g *getter) once(address string, file *os.File, try int) (int64, error) {
	n, err := g.append(file, func(from int64) (io.ReadCloser, error) { return g.get(g.ctx, address, from, 0) })
	if err == nil || n > 0 || !g.nfs.due(try, err) {
		return n, err
	}
	cause := err
	if n, err = g.append(file, func(from int64) (io.ReadCloser, error) { return g.nfs.open(digestOf(address), from, cause) }); err != nil {
		g.nfs.close()
	}
	return n, err
}

func (g *getter) append(file *os.File, open func(from int64) (io.ReadCloser, error)) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	body, err := open(info.Size())
	if agent.Status(err) == 416 && info.Size() > 0 {
		return 0, nil // RFC 9110, 15.5.17: nothing lies behind what is there
	}
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(file, body)
	return n, errors.Join(err, body.Close())
}

// digestOf is the digest that a blob's URL ends with: /blobs/sha256/HEX.
func digestOf(address string) string {
	return path.Base(path.Dir(address)) + ":" + path.Base(address)
}

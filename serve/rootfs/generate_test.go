package rootfs

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"path"
	"sort"
	"strings"
	"testing"
	"time"
)

// generator makes one image whose layers shadow, remove and replace what lies
// below them. What umoci cannot do at all it leaves out: an implied directory
// over a file.
type generator struct {
	t      testing.TB
	rng    *rand.Rand
	bodies map[*tar.Header]string
	prefix string
	below  *View // what the layers so far make
	opened []*Layer

	names map[string]*tar.Header // of the layer being made, by path
	alone bool                   // nothing may be added to the layer
}

func (g *generator) image(n int) [][]*tar.Header {
	var out [][]*tar.Header
	c := NewCache(0)
	for i := range n {
		l := g.layer(i)
		if out = append(out, l); i == n-1 {
			break
		}
		blob, s := blobOf(g.t, headersTar(g.t, l, g.bodies))
		g.opened = append(g.opened, openLayer(g.t, c, blob, s.Digest.String()))
		g.below = viewOf(g.t, g.opened...)
	}
	return out
}

func (g *generator) layer(n int) []*tar.Header {
	g.names, g.alone = map[string]*tar.Header{}, false
	if n == 0 {
		g.put(&tar.Header{Typeflag: tar.TypeDir, Name: g.prefix})
	}
	if n > 0 && g.rng.IntN(4) == 0 {
		g.throughSymlink()
	} else {
		for i := 1 + g.rng.IntN(10); i > 0 && !g.alone; i-- {
			g.entry(n)
		}
	}
	paths := make([]string, 0, len(g.names))
	for p := range g.names {
		paths = append(paths, p)
	}
	sort.Slice(paths, func(i, j int) bool {
		return strings.ReplaceAll(paths[i], "/", "\x00") < strings.ReplaceAll(paths[j], "/", "\x00")
	})
	var out, links []*tar.Header
	for _, p := range paths {
		if h := g.names[p]; h.Typeflag == tar.TypeLink {
			links = append(links, h)
		} else {
			out = append(out, h)
		}
	}
	return append(out, links...)
}

func (g *generator) pick() string {
	p := g.prefix
	for range 1 + g.rng.IntN(3) {
		p += "/" + string(rune('a'+g.rng.IntN(4)))
	}
	return p
}

func (g *generator) put(h *tar.Header) {
	h.Mode = int64(g.rng.IntN(0o1000))
	if h.Typeflag == tar.TypeSymlink {
		h.Mode = 0o777
	}
	h.ModTime = time.Unix(int64(1e9+g.rng.IntN(1e6)), 0)
	h.Uid, h.Gid = g.rng.IntN(3), g.rng.IntN(3)
	g.names[h.Name] = h
}

func (g *generator) entry(n int) {
	p := g.pick()
	kind := g.rng.IntN(10)
	if !g.allowed(p, kind == 0 || kind == 1) {
		return
	}
	switch {
	case kind <= 1:
		g.put(&tar.Header{Typeflag: tar.TypeDir, Name: p})
	case kind <= 4:
		h := &tar.Header{Typeflag: tar.TypeReg, Name: p}
		g.bodies[h] = fmt.Sprintf("%s in layer %d, %d", p, n, g.rng.IntN(1000))
		h.Size = int64(len(g.bodies[h]))
		g.put(h)
	case kind == 5:
		g.put(&tar.Header{Typeflag: tar.TypeSymlink, Name: p, Linkname: string(rune('a' + g.rng.IntN(4)))})
	case kind == 6:
		g.hardLink(p)
	case kind == 7 && n > 0:
		g.put(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(p), ".wh."+path.Base(p))})
	case kind == 8 && n > 0 && path.Dir(p) != g.prefix:
		g.put(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(p), ".wh..wh..opq")})
	case kind == 9:
		g.put(&tar.Header{Typeflag: tar.TypeFifo, Name: p})
	}
}

// allowed keeps a layer consistent in itself, and its implied directories off
// files below.
func (g *generator) allowed(p string, dir bool) bool {
	if g.names[p] != nil || g.names[path.Join(path.Dir(p), ".wh."+path.Base(p))] != nil {
		return false
	}
	for q := range g.names {
		if strings.HasPrefix(q, p+"/") && !dir {
			return false
		}
	}
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		h := g.names[d]
		if h != nil && h.Typeflag != tar.TypeDir || g.names[path.Join(path.Dir(d), ".wh."+path.Base(d))] != nil {
			return false
		}
		if h == nil && g.below != nil && g.kindBelow(d) != Dir && g.kindBelow(d) != 0 {
			return false
		}
	}
	return true
}

func (g *generator) kindBelow(p string) Kind {
	var kind Kind
	r := resolver{s: g.below.top}
	if f, err := r.walk(rootFile, p, false); err == nil {
		a, err := g.below.Attr(f)
		if err != nil {
			g.t.Fatal(err)
		}
		kind = a.Kind
	}
	return kind
}

// hardLink links to a file of this layer or, half of the time, of one below.
func (g *generator) hardLink(p string) {
	var targets []string
	for q, h := range g.names {
		if h.Typeflag == tar.TypeReg && !strings.Contains(q, ".wh.") {
			targets = append(targets, q)
		}
	}
	if g.below != nil && len(g.names) == 0 {
		g.alone = true
		g.walkBelow(func(q string, a Attr) {
			if a.Kind == Regular && !strings.HasPrefix(q, p+"/") && q != p {
				targets = append(targets, q)
			}
		})
	}
	if len(targets) == 0 {
		return
	}
	sort.Strings(targets)
	g.put(&tar.Header{Typeflag: tar.TypeLink, Name: p, Linkname: targets[g.rng.IntN(len(targets))]})
}

func (g *generator) walkBelow(fn func(p string, a Attr)) {
	err := g.below.Walk("/", func(p string, _ File, a Attr) error {
		fn(strings.TrimPrefix(p, "/"), a)
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// throughSymlink makes a layer of one file whose path leads through a symlink
// below to a directory.
func (g *generator) throughSymlink() {
	var links []string
	g.walkBelow(func(p string, a Attr) {
		if a.Kind != Symlink {
			return
		}
		if f, err := g.below.Resolve(p); err == nil {
			if at, err := g.below.Attr(f); err == nil && at.Kind == Dir {
				links = append(links, p)
			}
		}
	})
	if len(links) == 0 {
		return
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: links[g.rng.IntN(len(links))] + "/through"}
	g.bodies[h] = "through"
	h.Size = 7
	g.put(h)
}

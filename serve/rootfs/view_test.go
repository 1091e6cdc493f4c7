package rootfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

func TestUpperLayersShowThroughTheRulesOfOCI(t *testing.T) {
	c := NewCache(1 << 20)
	base := layerOf(t, c, ent{path: "./", mode: 0o711}, ent{path: "etc/", mode: 0o750}, ent{path: "etc/hosts", body: "base"}, ent{path: "etc/gone", body: "x"},
		ent{path: "usr/share/doc/a", body: "doc"}, ent{path: "var/log/", mode: 0o700}, ent{path: "var/log/old", body: "old"}, ent{path: "swap", body: "file"}, ent{path: "tmp/x/y", body: "deep"},
		ent{path: "h1", body: "linked"}, ent{path: "h2", hard: "h1"}, ent{path: "lib", link: "usr/lib"}, ent{path: "usr/lib/libc", body: "so"})
	upper := layerOf(t, c, ent{path: "etc/hosts", body: "node"}, ent{path: "etc/.wh.gone"}, ent{path: "etc/new/", mode: 0o700},
		ent{path: "var/log/", mode: 0o755}, ent{path: "var/log/.wh..wh..opq"}, ent{path: "var/log/new", body: "new"},
		ent{path: "swap/"}, ent{path: "swap/in", body: "dir now"}, ent{path: "tmp/x", body: "file now"}, ent{path: ".wh.h2"}, ent{path: "lib/libm", body: "math"}, ent{path: "h3", hard: "etc/hosts"})
	got := listing(t, viewOf(t, base, upper))
	want := []string{
		"/ directory 0711 8",
		"/etc directory 0750 3",
		"/etc/hosts file 0644 2 node",
		"/etc/new directory 0700 2",
		"/h1 file 0644 1 linked",
		"/h3 file 0644 2 node",
		"/lib symlink 0777 1 -> usr/lib",
		"/swap directory 0755 2",
		"/swap/in file 0644 1 dir now",
		"/tmp directory 0755 2",
		"/tmp/x file 0644 1 file now",
		"/usr directory 0755 4",
		"/usr/lib directory 0755 2",
		"/usr/lib/libc file 0644 1 so",
		"/usr/lib/libm file 0644 1 math",
		"/usr/share directory 0755 3",
		"/usr/share/doc directory 0755 2",
		"/usr/share/doc/a file 0644 1 doc",
		"/var directory 0755 3",
		"/var/log directory 0755 2",
		"/var/log/new file 0644 1 new",
	}
	want[0] = "/ directory 0711 7"
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestALayerOnTopChangesNoIdentity(t *testing.T) {
	c := NewCache(1 << 20)
	base := layerOf(t, c, ent{path: "etc/ssh/config", body: "x"}, ent{path: "etc/hosts", body: "y"})
	secrets, err := MemoryLayer(MemoryEntry{Path: "etc/ssh/key", Kind: Regular, Mode: 0o600, Data: []byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	without, with := viewOf(t, base), viewOf(t, base, secrets)
	for _, p := range []string{"/", "/etc", "/etc/ssh", "/etc/hosts"} {
		a, err1 := without.Resolve(p)
		b, err2 := with.Resolve(p)
		if err1 != nil || err2 != nil || a != b || string(without.Handle(a)) != string(with.Handle(b)) {
			t.Errorf("%s: %v, %v is %v and %v", p, err1, err2, a, b)
		}
	}
	r, err := with.Open("/etc/ssh/key")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "secret" || err != nil || r.Attr().Mode != 0o600 {
		t.Errorf("%q, %v", b, err)
	}
}

func TestHandlesAreOfOneImageAndOneMemoryLayer(t *testing.T) {
	c := NewCache(1 << 20)
	base := layerOf(t, c, ent{path: "a", body: "x"})
	secret := func(s string) *Layer {
		l, err := MemoryLayer(MemoryEntry{Path: "key", Kind: Regular, Data: []byte(s)})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	v := viewOf(t, base, secret("one"))
	key, _ := v.Resolve("key")
	h := v.Handle(key)
	if f, err := v.FromHandle(h); f != key || err != nil || len(h) != HandleSize {
		t.Errorf("%v, %v, %d bytes", f, err, len(h))
	}
	if id, f, err := ParseHandle(h); id != v.ID() || f != key || err != nil {
		t.Error(err)
	}
	if f, err := viewOf(t, base, secret("one")).FromHandle(h); f != key || err != nil {
		t.Errorf("the same secrets after a restart: %v", err)
	}
	if _, err := viewOf(t, base, secret("two")).FromHandle(h); !errors.Is(err, ErrStale) {
		t.Errorf("other secrets: %v", err)
	}
	other, _ := NewView("sha256:"+strings.Repeat("cd", 32), []*Layer{base})
	if _, err := other.FromHandle(h); !errors.Is(err, ErrStale) {
		t.Errorf("another image: %v", err)
	}
	for _, bad := range [][]byte{nil, h[:31], append([]byte{9}, h[1:]...), append([]byte{1, 7}, h[2:]...)} {
		if _, err := v.FromHandle(bad); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func TestPathsStayInsideTheRoot(t *testing.T) {
	c := NewCache(1 << 20)
	v := viewOf(t, layerOf(t, c, ent{path: "etc/passwd", body: "p"}, ent{path: "up", link: "../../../etc"}, ent{path: "abs", link: "/etc/passwd"},
		ent{path: "d/rel", link: "../abs"}, ent{path: "loop1", link: "loop2"}, ent{path: "loop2", link: "loop1"}))
	want, _ := v.Resolve("/etc/passwd")
	for _, p := range []string{"etc/passwd", "/../etc/./passwd", "/up/passwd", "abs", "/d/rel", "/d/../up/../etc//passwd"} {
		if f, err := v.Resolve(p); f != want || err != nil {
			t.Errorf("%s: %v, %v", p, f, err)
		}
	}
	for p, want := range map[string]error{"loop1": ErrLoop, "etc/none": fs.ErrNotExist, "etc/passwd/x": ErrNotDir, strings.Repeat("a/", 3000): fs.ErrInvalid} {
		if _, err := v.Resolve(p); !errors.Is(err, want) {
			t.Errorf("%.20s: %v, want %v", p, err, want)
		}
	}
}

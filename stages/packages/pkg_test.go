package packages_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
	"rhizome/stages/packages"

	"github.com/klauspost/compress/zstd"
)

// entry is a file of a package.
type entry struct {
	name, body, user string
	link             string
	mode             int64
}

func tarball(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.body)), Uname: e.user, Gname: e.user, Typeflag: tar.TypeReg, Uid: 1001, Gid: 1001}
		if e.link != "" {
			h.Typeflag, h.Linkname = tar.TypeLink, e.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// repository lays out packages as pkg repo does; more are keys of a manifest.
type repository struct {
	t    *testing.T
	dir  string
	site strings.Builder
}

func (r *repository) add(name string, deps []string, more map[string]any, files ...entry) {
	r.t.Helper()
	m := map[string]any{"name": name, "version": "1.0", "abi": "FreeBSD:15:amd64"}
	for k, v := range more {
		m[k] = v
	}
	text, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	body := tarball(r.t, append([]entry{{name: "+COMPACT_MANIFEST", body: string(text)}, {name: "+MANIFEST", body: string(text)}}, files...)...)
	path := "All/" + name + "-1.0.pkg"
	r.write(path, body)
	d := map[string]any{}
	for _, n := range deps {
		d[n] = map[string]string{"origin": "x/" + n, "version": "1.0"}
	}
	m["deps"], m["path"], m["repopath"] = d, path, path
	m["sum"], m["pkgsize"] = fmt.Sprintf("%x", sha256.Sum256(body)), len(body)
	line, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	r.site.Write(append(line, '\n'))
	r.write("packagesite.pkg", tarball(r.t, entry{name: "packagesite.yaml", body: r.site.String()}))
}

func (r *repository) write(name string, body []byte) {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, body, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func root(t *testing.T) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for p, text := range map[string]string{"etc/master.passwd": "root:*:0:0::0:0:Charlie:/root:/bin/sh\nwww:*:80:80::0:0:w:/nonexistent:/x\n", "etc/group": "wheel:*:0:root\nwww:*:80:\n"} {
		if err := tr.Add(tree.Entry{Path: p, Kind: tree.File, Body: tree.Text(text)}); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func install(t *testing.T, p packages.Pkg, names ...string) (*tree.Tree, error) {
	t.Helper()
	set, err := p.Resolve(t.Context(), names)
	if err != nil {
		return nil, err
	}
	return lay(t, p, set)
}

func lay(t *testing.T, p packages.Pkg, set recipes.PackageSet) (*tree.Tree, error) {
	t.Helper()
	files, err := p.Fetch(t.Context(), set)
	if err != nil {
		return nil, err
	}
	return packages.LayOut(t.Context(), t.TempDir(), set, files, root(t))
}

func TestPackagesAreLaidOutWithAllTheyDependOn(t *testing.T) {
	r := &repository{t: t, dir: t.TempDir()}
	r.add("libx", nil, nil, entry{name: "/usr/local/lib/libx.so", body: "x", mode: 0o755, user: "root"})
	r.add("httpd", []string{"libx"}, map[string]any{"users": []string{"www"}, "scripts": map[string]string{"post-deinstall": "true"}},
		entry{name: "/usr/local/sbin/httpd", body: "h", mode: 0o4755, user: "root"},
		entry{name: "/usr/local/sbin/apachectl", mode: 0o4755, user: "root", link: "/usr/local/sbin/httpd"},
		entry{name: "/usr/local/www/index", body: "i", mode: 0o640, user: "www"})
	r.add("other", nil, nil, entry{name: "/x", user: "root"})
	server := httptest.NewServer(http.FileServer(http.Dir(r.dir)))
	defer server.Close()
	get := func(ctx context.Context, url string) (io.ReadCloser, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		return resp.Body, nil
	}
	for _, from := range []string{r.dir, server.URL} {
		got, err := install(t, packages.Pkg{Repository: from, Get: get, Cache: t.TempDir(), Arch: "amd64"}, "httpd")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range got.Entries() {
			if !e.Implied {
				lines = append(lines, fmt.Sprintf("%s %o %d:%d %s", e.Path, e.Mode, e.UID, e.GID, e.Link))
			}
		}
		want := "usr/local/lib/libx.so 755 0:0 \nusr/local/sbin/apachectl 4755 0:0 \nusr/local/sbin/httpd 4755 0:0 usr/local/sbin/apachectl\nusr/local/www/index 640 80:80 "
		if s := strings.Join(lines, "\n"); s != want {
			t.Errorf("from %s\ngot\n%s\nwant\n%s", from, s, want)
		}
	}
}

func TestWhatCannotBeDoneWithoutRunningIsRefusedByName(t *testing.T) {
	r := &repository{t: t, dir: t.TempDir()}
	file := func(name string) entry { return entry{name: name, body: "x", user: "root"} }
	r.add("scripted", nil, map[string]any{"scripts": map[string]string{"post-install": "ldconfig"}}, file("/a"))
	r.add("lua", nil, map[string]any{"lua_scripts": map[string]any{"post-install": []string{"x"}}}, file("/b"))
	r.add("daemon", nil, map[string]any{"users": []string{"mysql"}}, file("/c"))
	r.add("owned", nil, nil, entry{name: "/d", user: "postgres"})
	r.add("lost", []string{"nowhere"}, nil, file("/e"))
	r.add("arm", nil, map[string]any{"abi": "FreeBSD:15:aarch64"}, file("/f"))
	r.add("one", nil, nil, file("/same"))
	r.add("two", []string{"one"}, nil, file("/same"))
	r.add("climber", nil, nil, file("/../../etc/passwd"))
	r.add("../../evil", nil, nil, file("/g"))
	p := packages.Pkg{Repository: r.dir, Cache: t.TempDir(), Arch: "amd64"}
	for name, want := range map[string]string{
		"scripted": `the package "scripted" 1.0: it runs a script when it is installed ("post-install")`,
		"lua":      `the package "lua" 1.0: it runs a script`,
		"daemon":   `it needs the user "mysql"`, "owned": `it needs the user "postgres"`,
		"lost": `has no package "nowhere"`, "arm": "is for FreeBSD:15:aarch64", "unknown": `has no package "unknown"`,
		"two": `the packages "one" and "two" both bring "/same"`, "climber": `leads out of the root`,
		"../../evil": "names hold no blank and no slash",
	} {
		if _, err := install(t, p, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestAPackageThatMovedOnIsNotTaken(t *testing.T) {
	r := &repository{t: t, dir: t.TempDir()}
	r.add("app", nil, nil, entry{name: "/a", body: "old", user: "root"})
	p := packages.Pkg{Repository: r.dir, Cache: t.TempDir(), Arch: "amd64"}
	set, err := p.Resolve(t.Context(), []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	r.add("app", nil, nil, entry{name: "/a", body: "new", user: "root"})
	if _, err := lay(t, p, set); err == nil || !strings.Contains(err.Error(), "it is not the one that was locked") {
		t.Errorf("got %v", err)
	}
	set.Packages[0].File = "../escape"
	if _, err := lay(t, p, set); err == nil || !strings.Contains(err.Error(), "outside the repository") {
		t.Errorf("got %v", err)
	}
}

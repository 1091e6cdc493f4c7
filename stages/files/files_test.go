package files

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"rhizome/pipeline/tree"
	"rhizome/recipes"
)

// folder writes files to a disk: "a/b" -> text, "a/l" -> "-> target".
func folder(t *testing.T, list map[string]string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(target, p)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o700)
		} else {
			err = os.WriteFile(p, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func listing(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tr.Entries() {
		if e.Implied {
			continue
		}
		fmt.Fprintf(&b, "%s %d:%d %s", e.Perm(), e.UID, e.GID, e.Path)
		if e.Target != "" {
			fmt.Fprintf(&b, " -> %s", e.Target)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func body(t *testing.T, tr *tree.Tree, p string) string {
	t.Helper()
	e := tr.Lookup(p)
	if e == nil {
		t.Fatalf("no %s in\n%s", p, listing(t, tr))
	}
	r, err := e.Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAFolderBecomesATreeWhoseModesTheCheckoutsUmaskDoesNotChange(t *testing.T) {
	root := folder(t, map[string]string{
		"overlay/etc/motd":            "hello\n",
		"overlay/etc/cron/job":        "#!/bin/sh\n",
		"overlay/etc/sudoers":         "",
		"overlay/root/.profile":       "PS1=x\n",
		"overlay/etc/localtime":       "-> /usr/share/zoneinfo/UTC",
		"overlay/etc/outside":         "-> ../../../../etc/shadow",
		"overlay/srv/data/one":        "1",
		"overlay/srv/empty/.gitkeep":  "",
		"overlay/usr/local/bin/tool":  "ELF",
		"elsewhere/not-in-the-folder": "x",
	})
	if err := root.Chmod("overlay/usr/local/bin/tool", 0o711); err != nil {
		t.Fatal(err)
	}
	got, err := Build(root.FS(), recipes.Files{
		From:   "overlay/",
		Owners: map[string]string{"/srv/**": "1000:1001", "/srv/data/*": "0:5"},
		Modes:  map[string]string{"/etc/sudoers": "0440", "/srv/data/": "2770", "/srv/**": "0640"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// /etc, /root and /usr lead to files and keep the mode they have below.
	want := `-rwxr-xr-x 0:0 etc/cron/job
Lrwxrwxrwx 0:0 etc/localtime -> /usr/share/zoneinfo/UTC
-rw-r--r-- 0:0 etc/motd
Lrwxrwxrwx 0:0 etc/outside -> ../../../../etc/shadow
-r--r----- 0:0 etc/sudoers
-rw-r--r-- 0:0 root/.profile
drwxr-xr-x 1000:1001 srv
dgrwxrwx--- 1000:1001 srv/data
-rw-r----- 0:5 srv/data/one
drwxr-xr-x 1000:1001 srv/empty
-rwxr-xr-x 0:0 usr/local/bin/tool
`
	if l := strings.ReplaceAll(listing(t, got), "Lrwxrwxrwx", "Lrwxrwxrwx"); l != want {
		t.Errorf("got\n%swant\n%s", l, want)
	}
	if body(t, got, "etc/motd") != "hello\n" {
		t.Error("the content is another")
	}
}

func TestAnEmbeddedFolderGivesTheSameTreeAsTheDisk(t *testing.T) {
	list := map[string]string{"o/bin/x": "#!/bin/sh\necho\n", "o/etc/y": "y"}
	disk, err := Build(folder(t, list).FS(), recipes.Files{From: "o"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// An embed.FS shows every file as 0444.
	mem := fstest.MapFS{"o/bin/x": {Data: []byte(list["o/bin/x"]), Mode: 0o444}, "o/etc/y": {Data: []byte("y"), Mode: 0o444}}
	embedded, err := Build(mem, recipes.Files{From: "o"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := Inputs(disk)
	b, errB := Inputs(embedded)
	if errA != nil || errB != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("disk %v (%v)\nembedded %v (%v)", a, errA, b, errB)
	}
}

func view() NodeView {
	r := &recipes.Recipe{Name: "web", OS: "linux", Arch: "amd64", Network: recipes.Network{
		Subnet: netip.MustParsePrefix("10.77.0.0/22"), Server: netip.MustParseAddr("10.77.0.1"), Domain: "example.org"}}
	for i, name := range []string{"n1", "n2", "login"} {
		r.Nodes = append(r.Nodes, recipes.Node{Name: name, MACs: []string{fmt.Sprintf("52:54:00:00:00:%02x", i+1)},
			Address: netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + i)}), Root: "nfs"})
	}
	return NodeValues(ClusterValues(r), &r.Nodes[1])
}

func TestTemplatesSeeTheNodeAndTheDocumentedFunctions(t *testing.T) {
	for text, want := range map[string]string{
		"{{.Name}} {{.Address}} {{.Cluster}} {{.OS}} {{.Root}}":                            "n2 10.77.0.12 web linux nfs",
		"{{netmask .Network.Subnet}}/{{prefixlen .Network.Subnet}}":                        "255.255.252.0/22",
		"{{broadcast .Network.Subnet}} {{networkID .Network.Subnet}}":                      "10.77.3.255 10.77.0.0",
		`{{default "none" .Network.Gateway}} {{default "1500" .Network.MTU}}`:              "none 1500",
		`{{range selectName "n[1-2]" .Nodes}}{{.Name}}={{.MAC}};{{end}}`:                   "n1=52:54:00:00:00:01;n2=52:54:00:00:00:02;",
		`{{join "," .MACs}} {{macdashes .MAC}} {{upper .Name}}`:                            "52:54:00:00:00:02 52-54-00-00-00-02 N2",
		`{{shquote "it's"}} {{quote "a\"b"}} {{fqdn .Network.Domain .Name}}`:               `'it'\''s' "a\"b" n2.example.org`,
		`{{indent 2 "a\nb"}}|{{trim " x "}}|{{replace "n" "m" .Name}}|{{basename "/a/b"}}`: "a\n  b|x|m2|b",
	} {
		got, err := Build(fstest.MapFS{"o/t.tmpl": {Data: []byte(text)}}, recipes.Files{From: "o", Template: true}, view())
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if s := body(t, got, "t"); s != want {
			t.Errorf("%s gives %q, want %q", text, s, want)
		}
	}
}

func TestATemplateThatDoesNotExpandNamesItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\n{{.Nme}}\n":          `o/t.tmpl:3:2: executing "o/t.tmpl" at <.Nme>: can't evaluate field Nme`,
		"a\n{{if}}":                 "o/t.tmpl:2: missing value for if",
		`{{selectName "[" .Nodes}}`: "bracket without its partner",
		`{{define "x"}}{{range .Nodes}}{{range $.Nodes}}{{template "x" $}}{{end}}{{end}}{{end}}{{template "x" .}}`: "o/t.tmpl: {{define}} and {{block}} are not available",
	} {
		_, err := Build(fstest.MapFS{"o/t.tmpl": {Data: []byte(text)}}, recipes.Files{From: "o", Template: true}, view())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestWithoutTemplateTheSuffixIsPartOfTheName(t *testing.T) {
	got, err := Build(fstest.MapFS{"o/t.tmpl": {Data: []byte("{{.X}}")}}, recipes.Files{From: "o"}, nil)
	if err != nil || body(t, got, "t.tmpl") != "{{.X}}" {
		t.Error(err)
	}
}

func TestWhatCannotBeCopiedIsRefusedByName(t *testing.T) {
	fifo := folder(t, map[string]string{"o/x": ""})
	if err := mkfifo(filepath.Join(fifo.Name(), "o/pipe")); err != nil {
		t.Skipf("skipped: no fifo can be made here: %v", err)
	}
	outside := folder(t, map[string]string{"link": "-> /etc"})
	both := fstest.MapFS{"o/a": {}, "o/a.tmpl": {}}
	folder := fstest.MapFS{"o/a/lost": {}, "o/a.tmpl": {}}
	for name, c := range map[string]struct {
		root interface{ err() error }
		want string
	}{
		"a pipe":                  {build{fifo.FS(), recipes.Files{From: "o"}}, `"o/pipe" is neither a file`},
		"a folder that leads out": {build{outside.FS(), recipes.Files{From: "link"}}, "escapes"},
		"dots":                    {build{outside.FS(), recipes.Files{From: "../x"}}, "does not lie in the recipe's folder"},
		"a file and its template": {build{both, recipes.Files{From: "o", Template: true}}, "remove one of them"},
		"a folder and a template": {build{folder, recipes.Files{From: "o", Template: true}}, `"a" and its template both make "/a"`},
		"a rule for nothing":      {build{both, recipes.Files{From: "o", Modes: map[string]string{"/b": "0600"}}}, `the rule "/b" matches no path`},
		"an owner by name":        {build{both, recipes.Files{From: "o", Owners: map[string]string{"/a": "root:wheel"}}}, "uid:gid"},
	} {
		if err := c.root.err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

type build struct {
	fsys interface {
		fsFS
	}
	f recipes.Files
}

func (b build) err() error {
	_, err := Build(b.fsys, b.f, view())
	return err
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"/etc/*", "/etc/a", true}, {"/etc/*", "/etc/a/b", false}, {"etc/*", "/etc/a", true},
		{"/srv/**", "/srv", true}, {"/srv/**", "/srv/a/b", true}, {"/**/x", "/a/b/x", true},
		{"/**/x", "/a/b/y", false}, {"/a/**/b", "/a/b", true}, {"/[ab]?", "/a1", true}, {"/a", "/ab", false},
	} {
		if match(c.glob, c.path) != c.want {
			t.Errorf("match(%q, %q) is %v", c.glob, c.path, !c.want)
		}
	}
}

func TestEveryFunctionIsInTheDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range functions() {
		if !strings.Contains(string(docs), "`"+name) {
			t.Errorf("docs/recipes.md does not know the function %s", name)
		}
	}
}

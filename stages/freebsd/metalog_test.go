package freebsd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhizome/pipeline/tree"
)

func TestMETALOGLines(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want Record
	}{
		"a file": {"./bin/cat type=file uname=root gname=wheel mode=0555 size=12 tags=package=runtime",
			Record{Path: "bin/cat", Kind: tree.File, Mode: 0o555, User: "root", Group: "wheel", Owned: true, Size: 12}},
		"the root": {". type=dir uname=root gname=wheel mode=0755",
			Record{Path: ".", Kind: tree.Dir, Mode: 0o755, User: "root", Group: "wheel", Owned: true, Size: -1}},
		"setuid and flags in another order": {"./usr/bin/su type=file uname=root gname=wheel mode=04555 flags=uarch,schg,nosunlnk",
			Record{Path: "usr/bin/su", Kind: tree.File, Mode: 0o4555, User: "root", Group: "wheel", Owned: true, Flags: "schg,uarch", Size: -1}},
		"nodump is a flag though it begins with no": {"./x type=file uname=root gname=wheel mode=0644 flags=nodump",
			Record{Path: "x", Kind: tree.File, Mode: 0o644, User: "root", Group: "wheel", Owned: true, Flags: "nodump", Size: -1}},
		"octal and C escapes": {`./a\040b\011c type=link uname=root gname=wheel mode=0755 link=d\se\#f`,
			Record{Path: "a b\tc", Kind: tree.Symlink, Mode: 0o755, User: "root", Group: "wheel", Owned: true, Target: "d e#f", Size: -1}},
		"bytes above ASCII": {`./\303\274ber type=dir uid=7 gid=13 mode=01777`,
			Record{Path: "über", Kind: tree.Dir, Mode: 0o1777, User: "7", Group: "13", Owned: true, Size: -1}},
		"a device in numbers": {"./dev/null type=char uname=root gname=wheel mode=0666 device=native,0,19",
			Record{Path: "dev/null", Kind: tree.CharDevice, Mode: 0o666, User: "root", Group: "wheel", Owned: true, Major: 0, Minor: 19, Size: -1}},
		"a device as one dev_t": {"./dev/x type=block uname=root gname=wheel mode=0640 device=0x10200000304",
			Record{Path: "dev/x", Kind: tree.BlockDevice, Mode: 0o640, User: "root", Group: "wheel", Owned: true, Major: 0x103, Minor: 0x204, Size: -1}},
		"a hard link, as install(1) logs it": {"./usr/bin/chfn type=file mode=0555 size=9 tags=package=runtime",
			Record{Path: "usr/bin/chfn", Kind: tree.File, Mode: 0o555, User: "root", Group: "wheel", Size: 9}},
		"a sum": {"./x type=file uname=root gname=wheel mode=0444 sha256digest=ABCD",
			Record{Path: "x", Kind: tree.File, Mode: 0o444, User: "root", Group: "wheel", Owned: true, SHA256: "abcd", Size: -1}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMETALOG(strings.NewReader("#mtree 2.0\n" + c.text + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			c.want.Line = 2
			if len(got) != 1 || got[0] != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestMETALOGDefaultsAndContinuedLines(t *testing.T) {
	text := "/set type=file uname=root gname=wheel mode=0444\n./a size=1\n./b mode=0555 \\\n  size=2\n/unset mode\n./c mode=0400\n"
	got, err := ParseMETALOG(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	for _, r := range got {
		seen = append(seen, fmt.Sprintf("%s %04o %d", r.Path, r.Mode, r.Size))
	}
	if want := "a 0444 1; b 0555 2; c 0400 -1"; strings.Join(seen, "; ") != want {
		t.Errorf("got %q, want %q", strings.Join(seen, "; "), want)
	}
}

func TestMETALOGThatCannotBeRead(t *testing.T) {
	for text, want := range map[string]string{
		"./a type=file uname=root gname=wheel":           `line 1: "a": mode ""`,
		"\n./a type=socket mode=0644":                    `line 2: "a": type "socket"`,
		"./a type=file mode=0x1ff":                       `mode "0x1ff"`,
		"./a type=file mode=17777":                       `mode "17777"`,
		"./../a type=file mode=0644":                     "leads out of the root",
		"a type=file mode=0644":                          "no full path",
		`./a\9 type=file mode=0644`:                      "no escape of vis(3)",
		`./a\777 type=file mode=0644`:                    "larger than a byte",
		"./a type=link mode=0755":                        "no target",
		"./a type=char mode=0600 device=native,1":        `device "native,1"`,
		"./a type=file mode=0644 size=-3":                `size "-3"`,
		"./a type=file mode=0644 =x":                     "no keyword",
		"./a type=file mode=0644 \\":                     "continued line",
		"./" + strings.Repeat("a", maxLine+1) + " mode=": "token too long",
	} {
		_, err := ParseMETALOG(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q gives %v, want an error with %q", text, err, want)
		}
	}
}

// installation lays files out as NO_ROOT leaves them.
func installation(t *testing.T, metalog string, files map[string]string) (destdir, log string) {
	t.Helper()
	dir := t.TempDir()
	destdir, log = filepath.Join(dir, "root"), filepath.Join(dir, "METALOG")
	for name, text := range files {
		p := filepath.Join(destdir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(log, []byte(metalog), 0o644); err != nil {
		t.Fatal(err)
	}
	return destdir, log
}

var testIDs = IDs{users: map[string]uint32{"root": 0, "games": 7}, groups: map[string]uint32{"wheel": 0, "games": 13}}

func TestInstalledTakesAttributesFromTheMETALOGAndBodiesFromTheDisk(t *testing.T) {
	destdir, log := installation(t, `#mtree 2.0
. type=dir uname=root gname=wheel mode=0755
./bin type=dir uname=root gname=wheel mode=0755
./bin type=dir uname=root gname=wheel mode=0755 tags=package=again
./bin/su type=file uname=root gname=wheel mode=04555 flags=schg size=2
./bin/so type=file mode=0555 size=2
./bin/su type=file mode=0555 size=2
./games type=dir uname=games gname=games mode=0775
./absent type=dir uname=root gname=wheel mode=0700
./dev/null type=char uname=root gname=wheel mode=0666 device=native,0,19
`, map[string]string{"bin/su": "su", "games/.keep": ""})
	if err := os.Remove(filepath.Join(destdir, "games/.keep")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(destdir, "bin/su"), filepath.Join(destdir, "bin/so")); err != nil {
		t.Fatal(err)
	}
	got, err := Installed(destdir, log, testIDs)
	if err != nil {
		t.Fatal(err)
	}
	want := `. directory 0755 0:0
absent directory 0700 0:0
bin directory 0755 0:0
bin/so file 4555 0:0 flags=schg size=2
bin/su file 4555 0:0 flags=schg link=bin/so
dev directory 0755 0:0
dev/null character device 0666 0:0 device=0,19
games directory 0775 7:13
`
	if s := listing(got); s != want {
		t.Errorf("got\n%swant\n%s", s, want)
	}
}

// listing writes a tree down, a line an entry.
func listing(t *tree.Tree) string {
	var b strings.Builder
	for _, e := range t.Entries() {
		fmt.Fprintf(&b, "%s %s %04o %d:%d", e.Path, e.Kind, e.Mode, e.UID, e.GID)
		for _, f := range []struct {
			show bool
			text string
		}{
			{e.Flags != "", " flags=" + e.Flags}, {e.Link != "", " link=" + e.Link}, {e.Target != "", " target=" + e.Target},
			{e.Kind == tree.CharDevice || e.Kind == tree.BlockDevice, fmt.Sprintf(" device=%d,%d", e.Major, e.Minor)},
			{e.Size() > 0, fmt.Sprintf(" size=%d", e.Size())},
		} {
			if f.show {
				b.WriteString(f.text)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestAMETALOGThatLiesIsNamed(t *testing.T) {
	file := "./bin/cat type=file uname=root gname=wheel mode=0555\n"
	for name, c := range map[string]struct {
		metalog string
		files   map[string]string
		want    string
	}{
		"listed but missing":      {file, nil, `"bin/cat" is listed as a file but is not on the disk`},
		"on the disk only":        {file, map[string]string{"bin/cat": "x", "bin/dog": "y"}, `"bin/dog" is on the disk but not in the METALOG`},
		"several on the disk":     {file, map[string]string{"bin/cat": "x", "bin/dog": "y", "bin/eel": "y"}, `"bin/dog", "bin/eel" are on the disk`},
		"another kind":            {"./bin/cat type=link uname=root gname=wheel link=dog\n", map[string]string{"bin/cat": "x"}, "listed as a symlink but is a file"},
		"another size":            {"./bin/cat type=file uname=root gname=wheel mode=0555 size=3\n", map[string]string{"bin/cat": "x"}, "listed with 3 bytes but has 1"},
		"another sum":             {"./bin/cat type=file uname=root gname=wheel mode=0555 sha256=00\n", map[string]string{"bin/cat": "x"}, "listed with sha256 00 but has 2d711642"},
		"two modes":               {file + "./bin/cat type=file uname=root gname=wheel mode=0755\n", map[string]string{"bin/cat": "x"}, `lines 1 and 2 list "bin/cat" with a different mode: 0555 and 0755`},
		"two owners":              {file + "./bin/cat type=file uname=games gname=wheel mode=0555\n", map[string]string{"bin/cat": "x"}, "a different owner: root and games"},
		"an owner nobody knows":   {"./bin/cat type=file uname=eve gname=wheel mode=0555\n", map[string]string{"bin/cat": "x"}, `the user "eve" is not in the source tree's etc/master.passwd`},
		"a group nobody knows":    {"./bin/cat type=file uname=root gname=eve mode=0555\n", map[string]string{"bin/cat": "x"}, `the group "eve" is not in the source tree's etc/group`},
		"a file within a file":    {file + "./bin/cat/dog type=dir uname=root gname=wheel mode=0555\n", map[string]string{"bin/cat": "x"}, "not a directory"},
		"an empty folder of ours": {file, map[string]string{"bin/cat": "x", "left/over": "y"}, `"left", "left/over" are on the disk`},
	} {
		t.Run(name, func(t *testing.T) {
			destdir, log := installation(t, c.metalog, c.files)
			if err := os.MkdirAll(destdir, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := Installed(destdir, log, testIDs)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestNoMETALOGMeansNoInstallation(t *testing.T) {
	_, err := Installed(t.TempDir(), "/nonexistent/METALOG", testIDs)
	if err == nil || !strings.Contains(err.Error(), "did the installation run?") {
		t.Errorf("got %v", err)
	}
}

// visOctal writes a name as install(1) does.
func visOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func FuzzUnvisUndoesVis(f *testing.F) {
	f.Add("plain")
	f.Add("with blank\tand \\ and # and \xff")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := unvis(visOctal(s))
		if err != nil || got != s {
			t.Errorf("%q was written as %q and read as %q, %v", s, visOctal(s), got, err)
		}
		_, _ = unvis(s) // whatever it says, it ends
	})
}

// What parses writes back and parses to the same.
func FuzzMETALOG(f *testing.F) {
	f.Add("#mtree 2.0\n/set uname=root\n./a\\040b type=file gname=wheel mode=04555 flags=schg,uarch size=3\n. type=dir mode=0755\n")
	f.Add("./l type=link link=x\\sy mode=0777\n./d type=char mode=0600 device=native,1,2\n")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := ParseMETALOG(strings.NewReader(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, r := range first {
			again.WriteString(writeRecord(r) + "\n")
		}
		second, err := ParseMETALOG(strings.NewReader(again.String()))
		if err != nil || len(first) != len(second) {
			t.Fatalf("%q was written as %q, which gives %d of %d records, %v", text, again.String(), len(second), len(first), err)
		}
		for i := range first {
			first[i].Line, second[i].Line = 0, 0
			if first[i] != second[i] {
				t.Errorf("%+v came back as %+v", first[i], second[i])
			}
		}
	})
}

func writeRecord(r Record) string {
	kinds := map[tree.Kind]string{}
	for word, k := range mtreeKinds {
		kinds[k] = word
	}
	s := fmt.Sprintf("./%s type=%s gname=%s mode=%#o", visOctal(r.Path), kinds[r.Kind], r.Group, r.Mode)
	if r.Owned {
		s += " uname=" + r.User
	}
	if r.Path == "." {
		s = "." + strings.TrimPrefix(s, "./.")
	}
	if r.Flags != "" {
		s += " flags=" + r.Flags
	}
	if r.Kind == tree.Symlink {
		s += " link=" + visOctal(r.Target)
	}
	if isDevice(r.Kind) {
		s += fmt.Sprintf(" device=native,%d,%d", r.Major, r.Minor)
	}
	if r.Size >= 0 {
		s += fmt.Sprintf(" size=%d", r.Size)
	}
	if r.SHA256 != "" {
		s += " sha256=" + r.SHA256
	}
	return s
}

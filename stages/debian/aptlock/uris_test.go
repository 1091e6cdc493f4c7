package aptlock

import (
	"net/url"
	"strings"
	"testing"

	"rhizome/recipes"
)

func TestAptsURIsBecomePackages(t *testing.T) {
	sources := []Source{{URI: "http://deb.example/debian"}, {URI: "http://deb.example/debian-security"}}
	sum := strings.Repeat("ab", 32)
	out := `NOTICE: 'x' is maintained elsewhere
'http://deb.example/debian/pool/main/e/e2fsprogs/logsave_1.47.0-2%2bb2_amd64.deb' logsave_1.47.0-2+b2_amd64.deb 19876 SHA256:` + sum + `
'http://deb.example/debian-security/pool/updates/main/t/tzdata/tzdata_2026f-0%2bdeb12u1_all.deb' tzdata_2026f-0+deb12u1_all.deb 307832 SHA256:` + sum + `
'http://deb.example/debian/pool/main/b/busybox/busybox_1.35.0-4%7ex_amd64.deb' busybox_1%3a1.35.0-4~x_amd64.deb 9 SHA256:` + sum + "\n"
	got, err := parseURIs(strings.TrimPrefix(out, "NOTICE: "), sources)
	if err == nil {
		t.Errorf("a line that only looks like one passed: %v", got)
	}
	got, err = parseURIs(out, sources)
	if err != nil {
		t.Fatal(err)
	}
	want := []recipes.LockedPackage{
		{Name: "logsave", Version: "1.47.0-2+b2", Arch: "amd64", File: "pool/main/e/e2fsprogs/logsave_1.47.0-2+b2_amd64.deb", Size: 19876, SHA256: sum},
		{Name: "tzdata", Version: "2026f-0+deb12u1", Arch: "all", File: "pool/updates/main/t/tzdata/tzdata_2026f-0+deb12u1_all.deb", Size: 307832, SHA256: sum},
		{Name: "busybox", Version: "1:1.35.0-4~x", Arch: "amd64", File: "pool/main/b/busybox/busybox_1.35.0-4~x_amd64.deb", Size: 9, SHA256: sum},
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestALineThatAptNeverPrintsIsRefused(t *testing.T) {
	sources := []Source{{URI: "http://m"}}
	for _, line := range []string{
		"'http://m/a_1_all.deb' a_1_all.deb 1 MD5Sum:4a251d86c8619bfabec03fe542fc32fb",
		"'http://m/a_1_all.deb' a_1_all.deb 1",
		"'http://m/a_1_all.deb' a_1_all.deb many SHA256:" + strings.Repeat("0", 64),
		"'http://elsewhere/a_1_all.deb' a_1_all.deb 1 SHA256:" + strings.Repeat("0", 64),
		"'http://m/a.deb' a.deb 1 SHA256:" + strings.Repeat("0", 64),
		"'http://m/a.deb' a_%zz_all.deb 1 SHA256:" + strings.Repeat("0", 64),
	} {
		if p, err := parseURI(line, sources); err == nil {
			t.Errorf("%s became %+v", line, p)
		}
	}
}

// Whatever a path holds, the mirror is asked for that very path.
func FuzzEscape(f *testing.F) {
	f.Add("pool/main/e/e2fsprogs/logsave_1.47.0-2+b2_amd64.deb")
	f.Add("a b%2f~/..")
	f.Fuzz(func(t *testing.T, file string) {
		got, err := url.PathUnescape(escape(file))
		if err != nil || got != file {
			t.Errorf("%q came back as %q, %v", file, got, err)
		}
		if strings.ContainsAny(escape(file), " '\"\n") {
			t.Errorf("%q holds what splits a line", escape(file))
		}
	})
}

// A paragraph that is written from what was read reads the same again.
func FuzzStanzas(f *testing.F) {
	f.Add("Package: a\nDepends: b,\n c\n\n# x\nPackage: d\n")
	f.Add("Signed-By:\n -----BEGIN\n .\n x\n")
	f.Fuzz(func(t *testing.T, text string) {
		first, err := parseStanzas(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, s := range first {
			for name, value := range s {
				b.WriteString(name + ": " + strings.ReplaceAll(value, "\n", "\n ") + "\n")
			}
			b.WriteString("\n")
		}
		second, err := parseStanzas(b.String())
		if err != nil || len(second) != len(first) {
			t.Fatalf("%q: %v, %d paragraphs became %d", text, err, len(first), len(second))
		}
		for i := range first {
			for name, value := range first[i] {
				if second[i][name] != value {
					t.Errorf("%q: field %q: %q became %q", text, name, value, second[i][name])
				}
			}
		}
	})
}

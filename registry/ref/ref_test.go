package ref

import (
	"strings"
	"testing"
)

const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestReferencesAreReadAsDockerReadsThem(t *testing.T) {
	for in, want := range map[string]Reference{
		"web":                                {Name: "web"},
		"web:1.2":                            {Name: "web", Tag: "1.2"},
		"team/web:1":                         {Name: "team/web", Tag: "1"},
		"web@sha256:" + hex:                  {Name: "web", Digest: "sha256:" + hex},
		"web:1@sha256:" + hex:                {Name: "web", Tag: "1", Digest: "sha256:" + hex},
		"sha256:" + hex:                      {Digest: "sha256:" + hex},
		"localhost/web":                      {Host: "localhost", Name: "web"},
		"localhost:5000/team/web:1":          {Host: "localhost:5000", Name: "team/web", Tag: "1"},
		"registry.example/web@sha256:" + hex: {Host: "registry.example", Name: "web", Digest: "sha256:" + hex},
		"[::1]:5000/web:1":                   {Host: "[::1]:5000", Name: "web", Tag: "1"},
		"10.0.0.1:5000/web":                  {Host: "10.0.0.1:5000", Name: "web"},
	} {
		got, err := Parse(in)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestWhatIsNoReferenceSaysWhy(t *testing.T) {
	for in, part := range map[string]string{
		"":                                "it is empty",
		"https://example/web":             "leave out \"https://\"",
		"Web":                             "lower-case",
		"web:":                            "is no tag",
		"web:a/b":                         "no host name",
		"web@sha256:12":                   "64 hexadecimal",
		"sha256:f9b4a42e079e":             "64 hexadecimal",
		":1":                              "the name is missing",
		"@sha256:" + hex[:63]:             "no digest",
		"../web":                          "no host name",
		"registry.example/":               "the name is missing",
		"web:" + strings.Repeat("a", 129): "is no tag",
		strings.Repeat("a", 300):          "longer than 255",
	} {
		if _, err := Parse(in); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Parse(%q) gives %v; it should say %q", in, err, part)
		}
	}
}

// The law: what parses writes back to what parses the same.
func FuzzWhatParsesWritesBack(f *testing.F) {
	for _, s := range []string{"web:1", "localhost:5000/a/b:1@sha256:" + hex, "sha256:" + hex, "[::1]:5/a", "a:b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(r.String())
		if err != nil || again != r {
			t.Errorf("%q parses to %+v, which writes %q, which parses to %+v (%v)", s, r, r, again, err)
		}
	})
}

package recipes

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

const head = `version: 1
name: web
os: linux
epoch: 2026-11-01T00:00:00Z
source: {debian: bookworm}
stages: [{kernel: {}}, {media: {ipxe: true}}, {early: {}}]
network: {subnet: 10.77.0.0/22, server: 10.77.0.1}
`

func good(t *testing.T, text string) *Recipe {
	t.Helper()
	r, found := Check("web.yaml", []byte(text), fstest.MapFS{"o/x": {}, "p/x": {}})
	if len(found) > 0 {
		t.Fatalf("%v", found)
	}
	return r
}

func show(nodes []Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name+" "+strings.Join(n.MACs, "+")+" "+n.Address.String())
	}
	return strings.Join(out, "\n")
}

func TestRangesUnrollToTheirNodes(t *testing.T) {
	for name, c := range map[string]struct{ node, want string }{
		"one node, one card": {`{name: a, mac: "52:54:00:AB:00:01", address: 10.77.0.11}`, "a 52:54:00:ab:00:01 10.77.0.11"},
		"one node, two cards": {`{name: a, mac: ["52:54:00:00:00:01", 52-54-00-00-00-02], address: 10.77.0.11}`,
			"a 52:54:00:00:00:01+52:54:00:00:00:02 10.77.0.11"},
		"MACs count in hexadecimal": {`{name: "n[09-11]", mac: "52:54:00:00:00:[09-0b]", address: "10.77.0.[109-111]"}`,
			"n09 52:54:00:00:00:09 10.77.0.109\nn10 52:54:00:00:00:0a 10.77.0.110\nn11 52:54:00:00:00:0b 10.77.0.111"},
		"ranges that cover all nodes give a card each": {`{name: "n[1-2]", mac: ["52:54:00:00:00:[01-02]", "52:54:00:00:01:[01-02]"], address: [10.77.0.11, 10.77.0.12]}`,
			"n1 52:54:00:00:00:01+52:54:00:00:01:01 10.77.0.11\nn2 52:54:00:00:00:02+52:54:00:00:01:02 10.77.0.12"},
		"a list per node": {`{name: "n[1,5]", mac: [["52:54:00:00:00:01", "52:54:00:00:00:0f"], "52:54:00:00:00:02"], address: "10.77.[0-1].9"}`,
			"n1 52:54:00:00:00:01+52:54:00:00:00:0f 10.77.0.9\nn5 52:54:00:00:00:02 10.77.1.9"},
		"two brackets, the last turning fastest": {`{name: "r[1-2]n[1-2]", mac: "52:54:00:00:0[1-2]:0[1-2]", address: "10.77.[1-2].[1-2]"}`,
			"r1n1 52:54:00:00:01:01 10.77.1.1\nr1n2 52:54:00:00:01:02 10.77.1.2\nr2n1 52:54:00:00:02:01 10.77.2.1\nr2n2 52:54:00:00:02:02 10.77.2.2"},
	} {
		if got := show(good(t, head+"nodes: ["+c.node+"]\n").Nodes); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

func TestTenThousandNodesUnroll(t *testing.T) {
	r := good(t, strings.Replace(head, "10.77.0.0/22", "10.0.0.0/8", 1)+
		`nodes: [{name: "n[00001-10000]", mac: "52:54:[00-27]:00:[00-f9]:01", address: "10.[100-139].[0-249].1"}]`+"\n")
	if len(r.Nodes) != 10000 || r.Nodes[9999].Name != "n10000" || r.Nodes[9999].MACs[0] != "52:54:27:00:f9:01" {
		t.Errorf("%d nodes, the last %+v", len(r.Nodes), r.Nodes[len(r.Nodes)-1])
	}
}

func TestProfilesLieUnderNodesInTheirOrder(t *testing.T) {
	r := good(t, head+`
profiles:
  base: {root: nfs, cmdline: quiet, tmpfs: {/tmp: 1M, /a: 2M}, files: o, persist: /persist, persistQuota: 2M, persistDevices: true}
  left: {profile: base, root: ram, tmpfs: {/a: 3M}}
  right: {profile: base, fstab: ["x /x nfs rw 0 0"], etc: volatile}
nodes:
  - name: n[1-2]
    profile: [left, right]
    mac: 52:54:00:00:00:[01-02]
    address: 10.77.0.[11-12]
    cmdline: [a, "b c"]
    files: [p]
    etc: none
    persist: none
    persistQuota: 0
    persistDevices: false
    fstab: |
      y /y nfs rw 0 0
  - {name: n3, profile: base, mac: "52:54:00:00:00:03", address: 10.77.0.13}
`)
	n := r.Nodes[1]
	var tmpfs, fstab, files []string
	for _, kv := range n.Tmpfs {
		tmpfs = append(tmpfs, kv.Key+"="+kv.Value)
	}
	for _, l := range n.Fstab {
		fstab = append(fstab, strings.Fields(l.Text)[0])
	}
	for _, f := range n.Files {
		files = append(files, f.From)
	}
	// base lies under both, once: its files are copied once.
	got := fmt.Sprint(n.Root, "|", n.Cmdline, "|", tmpfs, fstab, files, "|", n.Etc, "|", n.Persist, n.PersistQuota, n.PersistDevices)
	if want := "ram|quiet a b c|[/tmp=1M /a=3M] [x y] [o p]||0 false"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if r.Nodes[2].Root != "nfs" || r.Nodes[2].Persist != "/persist" || r.Nodes[2].PersistQuota != 2<<20 || !r.Nodes[2].PersistDevices || len(r.Nodes[2].Tmpfs) != 2 {
		t.Errorf("n3 has taken from its neighbours: %+v", r.Nodes[2])
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	r := good(t, head+`nodes: [{name: a, mac: "52:54:00:00:00:01", address: 10.77.0.11, secrets: [ssh-host-keys]}]`+"\n")
	n, d := r.Nodes[0], r.Source.Debian
	got := fmt.Sprint(r.Arch, d.Variant, d.Components, n.Kernel, n.Root, n.Secrets[0].Path, n.Secrets[0].Mode)
	if got != fmt.Sprint("amd64", "minbase", []string{"main"}, "default", "nfs", "/etc/ssh", 0o600) {
		t.Error(got)
	}
	if !r.Epoch.Equal(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)) {
		t.Error(r.Epoch)
	}
}

func TestNodeSets(t *testing.T) {
	for _, c := range []struct{ set, in, out string }{
		{"n[1-10],m[3,5]", "n1 n10 m3 m5", "n11 m4 n01"},
		{"n[01-10]", "n01 n10", "n1"},
		{"n*", "n1 node", "m1"},
		{"r[1-2]n?", "r1n1 r2n9", "r3n1 r1n10"},
		{"login", "login", "login1"},
		{"a, b", "a b", "c"},
	} {
		s, err := ParseNodeSet(c.set)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range strings.Fields(c.in) {
			if !s.Match(n) {
				t.Errorf("%s does not match %s", c.set, n)
			}
		}
		for _, n := range strings.Fields(c.out) {
			if s.Match(n) {
				t.Errorf("%s matches %s", c.set, n)
			}
		}
	}
	for _, bad := range []string{"", "a,", "n[1", "n1]", "n[]", "n[a-b]", "n[1-99999999999]", "n[1-9999],m[1-9999]"} {
		if _, err := ParseNodeSet(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	r := good(t, head+`nodes: [{name: "n[1-3]", mac: "52:54:00:00:00:0[1-3]", address: "10.77.0.1[1-3]"}]`+"\n")
	if got, err := r.Select("n[2-9]"); err != nil || !slices.Equal(got, []string{"n2", "n3"}) {
		t.Error(got, err)
	}
	if _, err := r.Select("m*"); err == nil {
		t.Error("a set that matches no node is taken")
	}
}

func TestAFileThatIsTooLargeIsRefusedUnread(t *testing.T) {
	name := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(name, []byte("version: 1 #"+strings.Repeat("x", MaxRecipe)), 0o644); err != nil {
		t.Fatal(err)
	}
	_, found, err := Load(name)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Message, "at most 1048576") {
		t.Error(found, err)
	}
}

func TestARecipeReadsNothingOutsideItsFolder(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "recipe")
	if err := os.MkdirAll(filepath.Join(outer, "secret"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../secret", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(head, "]\n", ", {files: link}]\n", 1) + `nodes: [{name: a, mac: "52:54:00:00:00:01", address: 10.77.0.11}]` + "\n"
	name := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, found, err := Load(name)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Message, "cannot be read") {
		t.Error(found, err)
	}
}

func TestTheErrorHoldsEveryFinding(t *testing.T) {
	_, found := Parse("x.yaml", []byte("a: 1\nb: 2\n"), nil)
	err := found.Err()
	if err == nil || strings.Count(err.Error(), "\n")+1 != len(found) || !strings.HasPrefix(err.Error(), "x.yaml:1:1: ") {
		t.Error(err)
	}
	if (Findings{{Severity: Warning}}).Err() != nil {
		t.Error("a warning stops a build")
	}
}

func TestFindingsThatRepeatThousandsOfTimesAreCutShort(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "k%d: 1\n", i)
	}
	if _, found := Parse("x.yaml", []byte(b.String()), nil); len(found) > maxFindings+1 {
		t.Errorf("%d findings", len(found))
	}
}

// FuzzParse holds the law: whatever the bytes, Check returns; the same bytes
// give the same findings; and what has no findings when it is checked has none
// when it is checked again.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	more, _ := filepath.Glob("*.yaml")
	for _, name := range append(files, more...) {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	fsys := os.DirFS("testdata")
	f.Fuzz(func(t *testing.T, data []byte) {
		r, found := Check("f.yaml", data, fsys)
		again, foundAgain := Check("f.yaml", data, fsys)
		if !reflect.DeepEqual(found, foundAgain) {
			t.Fatalf("%v, then %v", found, foundAgain)
		}
		if r == nil {
			if len(found) == 0 {
				t.Fatal("no recipe, and no reason why")
			}
			return
		}
		if !reflect.DeepEqual(Validate(r, fsys), Validate(again, fsys)) {
			t.Fatal("validation is not a function of the recipe")
		}
		if len(r.Nodes) > maxNames {
			t.Fatalf("%d nodes", len(r.Nodes))
		}
		for _, n := range found {
			if n.Pos.File == "" || n.Message == "" {
				t.Fatalf("a finding without place or message: %+v", n)
			}
		}
		if found.Errors() == 0 && (len(r.Nodes) == 0 || r.Epoch.IsZero() || !r.Network.Server.IsValid()) {
			t.Fatalf("valid, but incomplete: %+v", r)
		}
	})
}

func FuzzNodeSet(f *testing.F) {
	for _, s := range []string{"n[1-10],m[3,5]", "n*", "[", "n[01-10]x[1-2]", ""} {
		f.Add(s, "n1")
	}
	f.Fuzz(func(t *testing.T, set, name string) {
		s, err := ParseNodeSet(set)
		if err == nil {
			s.Match(name)
		}
	})
}

package recipes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func sampleLock() *Lock {
	sum := strings.Repeat("ab", 32)
	return &Lock{
		Version: LockVersion,
		Sets: map[string]PackageSet{"debian": {Request: "sha256:" + sum, Suite: "bookworm", Packages: []LockedPackage{
			{Name: "zlib1g", Version: "1:1.2.13", Arch: "amd64", File: "pool/main/z/zlib/zlib1g.deb", Size: 86400, SHA256: sum},
			{Name: "adduser", Version: "3.134", Arch: "all", File: "pool/main/a/adduser/adduser.deb", Size: 1, SHA256: sum},
		}}},
		Images:  map[string]string{"debian:12": "sha256:" + sum},
		Commits: map[string]string{"https://git.example/src.git#main": strings.Repeat("0", 40)},
	}
}

func TestALockIsReadBackAsItWasWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.lock.yaml")
	l := sampleLock()
	if err := WriteLock(file, l); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(file)
	if err := WriteLock(file, got); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(file); string(again) != string(first) {
		t.Errorf("written again it differs:\n%s\n%s", first, again)
	}
	if got.Sets["debian"].Packages[0].Name != "adduser" || !reflect.DeepEqual(got.Images, l.Images) {
		t.Errorf("%+v", got)
	}
	if l.Sets["debian"].Packages[0].Name != "zlib1g" {
		t.Error("writing changed the caller's lock")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestALockThatIsNotOneIsRefused(t *testing.T) {
	good, err := sampleLock().Encode()
	if err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("ab", 32)
	for name, c := range map[string]struct{ old, new, want string }{
		"another version":     {"\nversion: 1\n", "\nversion: 7\n", "its version is 7"},
		"an unknown key":      {"suite:", "siute:", "siute"},
		"a path out":          {"pool/main/z/zlib", "../../etc", "does not stay below"},
		"an absolute path":    {"file: pool/main/z", "file: /pool", "does not stay below"},
		"a name that leads":   {"name: adduser", "name: ../../adduser", "which holds a blank or a slash"},
		"a short sum":         {"sha256: " + sum, "sha256: abcd", "is no sha256"},
		"a repeated key":      {"\nsets:", "\nsets: {}\nsets:", "already"},
		"an anchor":           {"suite: bookworm", "suite: &a bookworm", "anchor"},
		"a tag for a digest":  {"sha256:" + sum + "\n", "latest\n", "no digest"},
		"a branch for commit": {strings.Repeat("0", 40), "main", "no commit"},
	} {
		text := strings.ReplaceAll(string(good), c.old, c.new)
		if text == string(good) {
			t.Fatalf("%s: nothing was replaced in\n%s", name, good)
		}
		if _, err := ParseLock("web.lock.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	for _, text := range []string{"", "# x\n", "[]", "a", "version: 1\n---\nversion: 1\n"} {
		if _, err := ParseLock("x", []byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAMissingLockCanBeToldFromABadOne(t *testing.T) {
	if _, err := ReadLock(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestALockThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.lock.yaml")
	if err := WriteLock(file, sampleLock()); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(file)
	bad := sampleLock()
	bad.Images["x"] = "not a digest"
	if err := WriteLock(file, bad); err == nil {
		t.Error("a bad lock is written")
	}
	if err := WriteLock(filepath.Join(dir, "no", "folder"), sampleLock()); err == nil {
		t.Error("written into a folder that is not there")
	}
	after, _ := os.ReadFile(file)
	left, _ := os.ReadDir(dir)
	if string(before) != string(after) || len(left) != 1 {
		t.Errorf("the folder holds %v", left)
	}
}

func TestTheLockLiesBesideItsRecipe(t *testing.T) {
	if got := (&Recipe{File: "a/web.yaml"}).LockFile(); got != "a/web.lock.yaml" {
		t.Error(got)
	}
}

func FuzzParseLock(f *testing.F) {
	good, err := sampleLock().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("version: 1\n"))
	// The law: what is read can be written, and is then read as the same.
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLock("f", data)
		if err != nil {
			return
		}
		text, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseLock("f", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if text2, err := again.Encode(); err != nil || string(text2) != string(text) {
			t.Fatalf("%v\n%s\n%s", err, text, text2)
		}
	})
}

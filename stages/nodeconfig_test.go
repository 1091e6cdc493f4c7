package stages

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rhizome/pipeline"
	"rhizome/recipes"
)

const smallRecipe = `
version: 1
name: web
os: linux
epoch: 2026-11-01T00:00:00Z
source: {debian: bookworm}
stages:
  - kernel: {}
  - media: {ipxe: true}
  - files: {from: overlay, template: true}
    nodes: n[1-2]
network: {subnet: 10.77.0.0/24, server: 10.77.0.1}
nodes:
  - {name: "n[1-3]", mac: "52:54:00:77:00:[01-03]", address: "10.77.0.[11-13]", files: {from: own, template: true}}
`

func load(t *testing.T, dir, text string) *recipes.Recipe {
	t.Helper()
	write(t, dir, "web.yaml", text)
	r, found, err := recipes.Load(filepath.Join(dir, "web.yaml"))
	if err != nil || len(found) > 0 {
		t.Fatal(err, found)
	}
	return r
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func inputs(t *testing.T, s pipeline.Stage) pipeline.Inputs {
	t.Helper()
	in, err := s.Inputs(context.Background(), pipeline.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func recipeFolder(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, "overlay/etc/motd.tmpl", "{{.Cluster}}\n")
	write(t, dir, "own/etc/issue.tmpl", "{{.Name}} of {{.Cluster}} at {{.Address}}\n")
	return dir
}

// Issue 3: changing one node's file rebuilds that node's config layer alone.
func TestWhatOneNodeHasOfItsOwnChangesNoOtherNodesKey(t *testing.T) {
	dir := recipeFolder(t)
	before := NodeConfigs(load(t, dir, smallRecipe))
	write(t, dir, "n3/etc/note", "x")
	other := strings.Replace(smallRecipe, `files: {from: own, template: true}`, `tmpfs: {}, files: {from: own, template: true}`, 1) +
		"  - {name: n4, mac: \"52:54:00:77:00:04\", address: 10.77.0.14, files: n3}\n"
	after := NodeConfigs(load(t, dir, other))
	for i := range before {
		if !maps.Equal(inputs(t, before[i]), inputs(t, after[i])) {
			t.Errorf("%s would be built again because n4 came", before[i].Info().Name)
		}
	}
	if after[3].Info().Name != "node:n4" || inputs(t, after[3])["/etc/note"] == "" {
		t.Errorf("n4 lacks its own file: %v", inputs(t, after[3]))
	}
}

func TestANodesOwnTemplateKnowsTheNode(t *testing.T) {
	r := load(t, recipeFolder(t), smallRecipe)
	out, err := NodeConfigs(r)[1].Run(context.Background(), pipeline.Env{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := out.Tree.Lookup("etc/issue").Body.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 64)
	n, _ := f.Read(got)
	if string(got[:n]) != "n2 of web at 10.77.0.12\n" {
		t.Errorf("%q", got[:n])
	}
	if !strings.Contains(out.Facts["boot.cmdline"], "nfsroot={server}:/nodes/{name},") {
		t.Errorf("facts: %v", out.Facts)
	}
}

func TestAFilesStageIsForTheNodesItNames(t *testing.T) {
	dir := recipeFolder(t)
	r := load(t, dir, smallRecipe)
	s, err := Files(r, r.Stages[2], "files")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Info(); !slices.Equal(got.Nodes, []string{"n1", "n2"}) || got.Pos.Line != 10 {
		t.Errorf("%+v", got)
	}
	first := inputs(t, s)
	write(t, dir, "overlay/etc/motd.tmpl", "{{/* a comment */}}{{.Cluster}}\n")
	if again := inputs(t, s); !maps.Equal(first, again) {
		t.Errorf("a template that gives the same text changed the key: %v, %v", first, again)
	}
	write(t, dir, "overlay/etc/motd.tmpl", "{{.Cluster}}!\n")
	if again := inputs(t, s); maps.Equal(first, again) {
		t.Error("another text, but the same key")
	}
}

func TestWhatAllNodesShareIsOneStep(t *testing.T) {
	r := load(t, recipeFolder(t), smallRecipe)
	in := inputs(t, Common(r))
	if got := slices.Sorted(maps.Keys(in)); !slices.Equal(got, []string{"/etc/hosts", "/etc/resolv.conf"}) {
		t.Error(got)
	}
}

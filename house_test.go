package rhizome_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// house is DESIGN.md's table of who may import whom, as a rule per package
// prefix: the longest prefix that fits a package holds for it. The same rules
// stand in .golangci.yml, where an editor shows them; here they also hold for
// what is imported through others.
var house = map[string][]string{
	"recipes":            {},
	"pipeline/tree":      {},
	"pipeline/layer":     {"pipeline/tree", "registry/layerfmt"},
	"pipeline/image":     {"pipeline/tree", "registry/layerfmt", "registry/imagefmt"},
	"pipeline":           {"recipes", "pipeline", "registry/layerfmt", "registry/imagefmt"},
	"stages":             {"pipeline", "stages", "recipes"},
	"registry/layerfmt":  {},
	"registry/imagefmt":  {},
	"registry/durable":   {"registry/durable"},
	"registry/layout":    {"registry/layerfmt", "registry"},
	"registry":           {"registry"},
	"serve/admin":        {"serve/boot"},
	"serve/boot":         {},
	"serve/bootspec":     {"registry/imagefmt"},
	"serve/rootfs":       {"registry/layerfmt"},
	"serve/reads":        {"registry/durable", "registry/layerfmt", "serve/rootfs", "serve/boot"},
	"serve/volume":       {"serve/node/nodeapi", "registry/durable", "registry/imagefmt", "registry/layerfmt", "serve/rootfs", "serve/rpc", "serve/nfs", "serve/boot"},
	"serve/node":         {"serve/boot", "serve/bootspec", "serve/node/nodeapi", "registry/durable"},
	"serve/node/nodeapi": {},
	"serve/rpc":          {"serve/boot"},
	"serve/rpc/rpctest":  {"serve/rpc"},
	"serve/nfs":          {"serve/boot", "serve/rpc", "serve/rootfs", "registry/layerfmt"},
	"serve/dhcp":         {"serve/boot", "registry/imagefmt"},
	"serve/tftp":         {"serve/boot", "serve/bootspec", "serve/rootfs", "registry/imagefmt"},
	"serve/http":         {"serve/boot", "serve/bootspec", "serve/rootfs", "registry/imagefmt"},
	"serve":              {"serve", "registry/layerfmt", "registry/imagefmt"},
	"cmd":                {"cmd", "recipes", "pipeline", "stages", "registry", "serve"},
	"cmd/rhizome-node":   {"cmd/rhizome-node", "serve/node/nodeapi", "registry/layerfmt"},
	"bench":              {"recipes", "pipeline", "stages", "registry", "serve"},
}

// kinds may import only trees and recipes: a stage knows no store, no registry
// and no other stage, but for the one that drives FreeBSD's make.
var kinds = []string{"pipeline/tree", "recipes", "stages/freebsd", "stages/debian", "stages/sandbox"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportsKeepToTheHouse(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, "rhizome/")
		if name == "rhizome" {
			continue
		}
		allowed, ok := allowedFor(name)
		if !ok {
			t.Errorf("package %s has no place in the house: add it to DESIGN's table and to this test", name)
			continue
		}
		for _, imp := range p.Imports {
			checkImport(t, name, imp, allowed)
		}
	}
}

func allowedFor(name string) ([]string, bool) {
	if strings.HasPrefix(name, "stages/") {
		return append(slices.Clone(kinds), name), true
	}
	for at := name; ; {
		if a, ok := house[at]; ok {
			return append(slices.Clone(a), name), true
		}
		cut := strings.LastIndexByte(at, '/')
		if cut < 0 {
			return nil, false
		}
		at = at[:cut]
	}
}

func checkImport(t *testing.T, name, imp string, allowed []string) {
	t.Helper()
	if strings.HasPrefix(imp, "oras.land/") && !strings.HasPrefix(name, "registry") {
		t.Errorf("%s imports %s: only registry may know oras", name, imp)
	}
	if imp == "net/http" && (strings.HasPrefix(name, "pipeline") || strings.HasPrefix(name, "recipes")) {
		t.Errorf("%s imports net/http: building decides, it does not talk", name)
	}
	ours, ok := strings.CutPrefix(imp, "rhizome/")
	if !ok {
		return
	}
	for _, a := range allowed {
		if ours == a || strings.HasPrefix(ours, a+"/") {
			return
		}
	}
	t.Errorf("%s imports %s; the house allows it only %v: the fact it needs belongs in the image, or in an interface at its own door", name, ours, allowed)
}

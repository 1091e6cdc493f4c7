package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// variants are images beside the usual one, made of the same layers wherever a
// recipe does not differ: what changes in the recipe, by tag.
var variants = map[string][]string{
	"pxelinux": {"media: {ipxe: true}", "media: {pxelinux: true}"},
	// The nodes are behind a router that relays their DHCP.
	"routed": {
		"subnet: 10.77.0.0/24", "subnet: 10.78.0.0/24\n  gateway: 10.78.0.1",
		"address: 10.77.0.", "address: 10.78.0.",
	},
}

// nodes are those of the tests' recipe: four alike, and one for each way in
// which a node lives otherwise.
const nodes = `
nodes:
  - name: n[1-4]
    profile: demo
    etc: volatile
    shared: /shared
    mac: 52:54:00:77:00:[01-04]
    address: 10.77.0.[11-14]
  - name: n5
    profile: demo
    root: precache
    etc: persistent
    mac: 52:54:00:77:00:05
    address: 10.77.0.15
  - name: n6
    profile: demo
    root: ram
    etc: volatile
    mac: 52:54:00:77:00:06
    address: 10.77.0.16
`

// writeRecipe makes the recipe that the tests boot: the shipped demo, with a
// root shell on the serial console and nodes of its own.
func writeRecipe(dir string) (string, error) {
	shipped := filepath.Join("..", "..", "..", "recipes")
	text, err := os.ReadFile(filepath.Join(shipped, "debian-demo.yaml"))
	if err != nil {
		return "", err
	}
	const overlay = "      from: debian-demo/overlay/\n"
	head, _, _ := strings.Cut(string(text), "\nnodes:\n")
	changed, err := replaceAll(head+nodes, overlay, overlay+"  - files: {from: console/}\n", "name: debian-demo\n", "name: e2e\n",
		"      - kmod\n", "      - kmod\n      - libc6-dev\n      - make\n      - tcc\n") // what prefetch_test.go builds with
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "debian-demo"), os.DirFS(filepath.Join(shipped, "debian-demo"))); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "console"), os.DirFS("testdata/console")); err != nil {
		return "", err
	}
	recipe := filepath.Join(dir, "e2e.yaml")
	return recipe, os.WriteFile(recipe, []byte(changed), 0o644)
}

// writeVariant makes a variant of the recipe beside it.
func writeVariant(recipe, tag string) (string, error) {
	text, err := os.ReadFile(recipe)
	if err != nil {
		return "", err
	}
	changed, err := replaceAll(string(text), variants[tag]...)
	if err != nil {
		return "", err
	}
	variant := filepath.Join(filepath.Dir(recipe), tag+".yaml")
	return variant, os.WriteFile(variant, []byte(changed), 0o644)
}

// replaceAll changes old to new, pair by pair, and misses none.
func replaceAll(text string, pairs ...string) (string, error) {
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			return "", fmt.Errorf("the shipped recipe no longer has %q to be changed", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text, nil
}

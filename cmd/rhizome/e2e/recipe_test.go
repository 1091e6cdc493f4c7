package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeRecipe makes the recipe that the tests boot: the shipped demo, to the
// letter, with a root shell on the serial console.
func writeRecipe(dir string) (string, error) {
	shipped := filepath.Join("..", "..", "..", "recipes")
	text, err := os.ReadFile(filepath.Join(shipped, "debian-demo.yaml"))
	if err != nil {
		return "", err
	}
	const overlay = "      from: debian-demo/overlay/\n"
	if !strings.Contains(string(text), overlay) {
		return "", fmt.Errorf("the shipped recipe has no line %q to put the console after", overlay)
	}
	changed := strings.Replace(string(text), overlay, overlay+"  - files: {from: console/}\n", 1)
	changed = strings.Replace(changed, "name: debian-demo\n", "name: e2e\n", 1)
	if err := os.CopyFS(filepath.Join(dir, "debian-demo"), os.DirFS(filepath.Join(shipped, "debian-demo"))); err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(dir, "console"), os.DirFS("testdata/console")); err != nil {
		return "", err
	}
	recipe := filepath.Join(dir, "e2e.yaml")
	return recipe, os.WriteFile(recipe, []byte(changed), 0o644)
}

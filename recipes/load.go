package recipes

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// shipped holds the recipes that the binary carries, with their folders.
//
//go:embed *.yaml all:debian-demo all:debian-slurm all:freebsd-diskless
var shipped embed.FS

// Shipped lists the names of the recipes that the binary carries.
func Shipped() []string {
	files, err := fs.Glob(shipped, "*.yaml")
	if err != nil {
		return nil
	}
	for i := range files {
		files[i] = strings.TrimSuffix(files[i], ".yaml")
	}
	return files
}

// Load reads and checks a recipe by its path, or one of the shipped recipes by
// its name, in any folder. The error is for a recipe that cannot be read, and
// wraps fs.ErrNotExist where there is none; what is wrong within it is in the
// findings.
func Load(name string) (*Recipe, Findings, error) {
	data, err := readRecipe(name)
	if err == nil {
		return loadFrom(name, data)
	}
	file := strings.TrimSuffix(name, ".yaml") + ".yaml"
	if inside, errShipped := shipped.ReadFile(file); errShipped == nil {
		r, found := Check(file, inside, shipped)
		return r, found, nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading recipe %q: %w: give the path of a recipe, or the name of a shipped one: %s", name, fs.ErrNotExist, strings.Join(Shipped(), ", "))
	}
	return nil, nil, fmt.Errorf("reading recipe %q: %w", name, err)
}

func loadFrom(name string, data []byte) (*Recipe, Findings, error) {
	dir := filepath.Dir(name)
	// Root refuses what leads out of the folder, through symlinks too. Its
	// descriptor is closed when the recipe is no longer used.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the folder of recipe %q: %w", name, err)
	}
	r, found := Check(name, data, root.FS())
	return r, found, nil
}

// ErrDirectory is matched by Load's error where a recipe's name is a folder's.
var ErrDirectory = errors.New("is a directory")

// readRecipe reads at most one byte more than a recipe may have.
func readRecipe(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("it %w; name the .yaml file in it", ErrDirectory)
	}
	return io.ReadAll(io.LimitReader(f, MaxRecipe+1))
}

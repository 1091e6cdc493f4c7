package early

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Find looks for rhizome-node of a platform in folders, in their order: as
// rhizome-node-OS-ARCH, else as rhizome-node where that is a program of the
// platform.
func Find(dirs []string, goos, arch string) (string, error) {
	exact := "rhizome-node-" + goos + "-" + arch
	for _, dir := range dirs {
		for _, name := range []string{exact, "rhizome-node"} {
			file := filepath.Join(dir, name)
			fits, err := isFor(file, goos, arch)
			if err != nil {
				return "", err
			}
			if fits {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("there is no %s, the program that goes into the nodes' roots, in %s: put it there (\"make build\" makes it, and so does GOOS=%s GOARCH=%s CGO_ENABLED=0 go build -o %s ./cmd/rhizome-node)",
		exact, strings.Join(dirs, " or "), goos, arch, exact)
}

// isFor says whether a file is a Go program of a platform. One that is there
// and cannot be read is an error; one of another platform is none.
func isFor(file, goos, arch string) (bool, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return false, fmt.Errorf("finding out what %q was built for: %w", file, err)
	}
	built := map[string]string{}
	for _, s := range info.Settings {
		built[s.Key] = s.Value
	}
	return built["GOOS"] == goos && built["GOARCH"] == arch, nil
}

package freebsd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Toolchain is the LLVM that compiles the tree. An empty Bin is the tree's
// own compiler, which a FreeBSD host builds first.
type Toolchain struct {
	// Bin is the folder of clang and ld.lld.
	Bin string
	// Identity names the toolchain by version, never by path.
	Identity string
}

// programs are what tools/build/make.py looks for in the toolchain's folder.
var programs = []string{"clang", "clang++", "clang-cpp", "ld.lld"}

// FindToolchain checks the toolchain that a recipe names, against what the
// tree wants. host is runtime.GOOS.
func FindToolchain(ctx context.Context, s Source, bin, host string) (Toolchain, error) {
	if bin == "" && host == "freebsd" {
		return hostToolchain(ctx)
	}
	wanted := wantedLLVM(s)
	if bin == "" {
		return Toolchain{}, fmt.Errorf("building FreeBSD on %s needs LLVM %s, and the recipe names none; install it (on Debian: apt install %s) and set source.src.toolchain: /usr/lib/llvm-%s/bin", host, wanted, debianPackages(wanted), major(wanted))
	}
	for _, p := range programs {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return Toolchain{}, fmt.Errorf("the toolchain %q has no %s; install LLVM %s (on Debian: apt install %s) and let source.src.toolchain name its bin folder, such as /usr/lib/llvm-%s/bin", bin, p, wanted, debianPackages(wanted), major(wanted))
		}
	}
	id, err := identity(ctx, filepath.Join(bin, "clang"), filepath.Join(bin, "ld.lld"))
	if err != nil {
		return Toolchain{}, err
	}
	return Toolchain{Bin: bin, Identity: id}, suits(id, wanted, bin)
}

func hostToolchain(ctx context.Context) (Toolchain, error) {
	id, err := identity(ctx, "cc", "ld")
	return Toolchain{Identity: id}, err
}

func debianPackages(version string) string {
	m := major(version)
	return fmt.Sprintf("llvm-%s clang-%s lld-%s", m, m, m)
}

func major(version string) string {
	m, _, _ := strings.Cut(version, ".")
	return m
}

var llvmVersion = regexp.MustCompile(`LLVM_VERSION_STRING\s+"([^"]+)"`)

// wantedLLVM is the version the tree itself carries: its headers and runtime
// libraries are compiled by the toolchain, and belong to one major version.
func wantedLLVM(s Source) string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "lib/clang/include/llvm/Config/llvm-config.h"))
	if m := llvmVersion.FindSubmatch(text); err == nil && m != nil {
		return string(m[1])
	}
	return "19.1"
}

var clangVersion = regexp.MustCompile(`clang version (\d+)\.`)

func suits(identity, wanted, bin string) error {
	m := clangVersion.FindStringSubmatch(identity)
	if m == nil || m[1] == major(wanted) {
		return nil
	}
	return fmt.Errorf("the toolchain %q is LLVM %s, but this tree carries the runtime of LLVM %s; install that one (on Debian: apt install %s) and let source.src.toolchain name it", bin, m[1], wanted, debianPackages(wanted))
}

// identity joins the first lines that the programs print of their version.
// Those hold the distribution's package version too, and no path.
func identity(ctx context.Context, names ...string) (string, error) {
	var lines []string
	for _, n := range names {
		out, err := exec.CommandContext(ctx, n, "--version").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("asking %q for its version: %w: %s", n, err, bytes.TrimSpace(out))
		}
		line, _, _ := strings.Cut(string(out), "\n")
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "; "), nil
}

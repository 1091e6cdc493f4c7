// Package e2e boots real (emulated) machines from a real rhizome process. Each
// test builds on the same image: the recipe in testdata, made of real Debian
// packages, pushed to Debian's docker-registry and pulled back by digest.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// world is what all tests share: the program, a store with the pulled image,
// and the CPU that machines get.
type world struct {
	dir    string
	binary string
	store  string
	digest string
	cpu    []string
}

var shared struct {
	once sync.Once
	w    *world
	err  error
}

func TestMain(m *testing.M) {
	if server := os.Getenv(siegeVar); server != "" {
		fmt.Fprintln(os.Stderr, besiege(server))
		os.Exit(1)
	}
	code := m.Run()
	if shared.w != nil {
		os.RemoveAll(shared.w.dir)
	}
	os.Exit(code)
}

// need returns the shared world, made once, or skips where machines cannot run.
func need(t *testing.T) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: machines are not booted with -short")
	}
	if err := rig.Usable(); err != nil {
		t.Skipf("skipped: %v", err)
	}
	shared.once.Do(func() { shared.w, shared.err = makeWorld(t) })
	if shared.err != nil {
		t.Fatalf("making the image that all tests boot: %v", shared.err)
	}
	return shared.w
}

func makeWorld(t *testing.T) (*world, error) {
	dir, err := os.MkdirTemp("", "rhizome-e2e-")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, binary: filepath.Join(dir, "rhizome"), store: filepath.Join(dir, "pulled")}
	// rhizome-node lies beside it, for the nodes' roots.
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "rhizome/cmd/rhizome", "rhizome/cmd/rhizome-node")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return w, fmt.Errorf("go build: %w\n%s", err, out)
	}
	recipe, err := writeRecipe(dir)
	if err != nil {
		return w, err
	}
	built := filepath.Join(dir, "built")
	if w.digest, err = w.run("--store", built, "build", recipe, "--tag", "e2e:v1"); err != nil {
		return w, err
	}
	for tag := range variants {
		recipe, err := writeVariant(recipe, tag)
		if err != nil {
			return w, err
		}
		if _, err := w.run("--store", built, "build", recipe, "--tag", "e2e:"+tag); err != nil {
			return w, err
		}
	}
	if err := w.buildWorkout(built, recipe); err != nil {
		return w, err
	}
	registry, stop, err := startRegistry(dir)
	if err != nil {
		return w, err
	}
	defer stop()
	if _, err := w.run("--store", built, "push", "e2e:v1", registry+"/e2e:v1", "--plain-http"); err != nil {
		return w, err
	}
	pulled, err := w.run("--store", w.store, "pull", registry+"/e2e@"+w.digest, "--plain-http", "--tag", "e2e:v1")
	if err != nil {
		return w, err
	}
	if pulled != w.digest {
		return w, fmt.Errorf("built %s, but pulled %s", w.digest, pulled)
	}
	for tag := range variants {
		if err := w.carry(built, registry, tag); err != nil {
			return w, err
		}
	}
	if err := w.carry(built, registry, workoutTag); err != nil {
		return w, err
	}
	// What is served below was never on this disk but through the registry.
	if err := os.RemoveAll(built); err != nil {
		return w, err
	}
	kernel := filepath.Join(dir, "vmlinuz")
	if err := w.save(kernel, "cat", "e2e:v1", "n1", "/boot/vmlinuz"); err != nil {
		return w, err
	}
	w.cpu = rig.Accelerate(context.Background(), kernel)
	t.Logf("image %s; machines run with %s", w.digest, strings.Join(w.cpu, " "))
	return w, nil
}

// carry brings one more tag from the store where it was built into the one that
// is served.
func (w *world) carry(built, registry, tag string) error {
	far := registry + "/e2e:" + tag
	if _, err := w.run("--store", built, "push", "e2e:"+tag, far, "--plain-http"); err != nil {
		return err
	}
	_, err := w.run("--store", w.store, "pull", far, "--plain-http", "--tag", "e2e:"+tag)
	return err
}

// run runs the program and returns the last line of its output.
func (w *world) run(args ...string) (string, error) {
	cmd := exec.Command(w.binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("rhizome %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[len(lines)-1], nil
}

func (w *world) save(file string, args ...string) error {
	cmd := exec.Command(w.binary, append([]string{"--store", w.store}, args...)...)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, os.Stderr
	return cmd.Run()
}

// startRegistry runs Debian's docker-registry on a free loopback port.
func startRegistry(dir string) (host string, stop func(), err error) {
	host, err = freeLoopback()
	if err != nil {
		return "", nil, err
	}
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "registry"), host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("starting docker-registry: %w", err)
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	if err := answering(host, 20*time.Second); err != nil {
		stop()
		return "", nil, err
	}
	return host, stop, nil
}

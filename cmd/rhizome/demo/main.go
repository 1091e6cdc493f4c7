// Command demo shows the whole road on one machine: it builds the shipped
// Debian recipe, serves the image inside a network namespace of its own, and
// boots two QEMU machines from it over the network. `make demo` runs it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"rhizome/cmd/rhizome/internal/rig"
)

// binary is where `make build` puts the program.
const binary = "bin/rhizome"

// bootLimit is how long two emulated machines may take to come up.
const bootLimit = 10 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "rhizome-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store := filepath.Join(dir, "store")
	step("building the recipe debian-demo: packages -> layers -> cluster image")
	if err := rhizome(ctx, os.Stdout, "--store", store, "build", "debian-demo", "--tag", "debian-demo:latest"); err != nil {
		return err
	}
	step("what the store holds now")
	if err := rhizome(ctx, os.Stdout, "--store", store, "images"); err != nil {
		return err
	}
	if err := rig.Usable(); err != nil {
		fmt.Printf("skipped: booting machines: %v\n", err)
		return nil
	}
	return boot(ctx, dir, store)
}

func boot(ctx context.Context, dir, store string) error {
	kernel := filepath.Join(dir, "vmlinuz")
	if err := save(ctx, kernel, "--store", store, "cat", "debian-demo", "n1", "/boot/vmlinuz"); err != nil {
		return err
	}
	cpu := rig.Accelerate(ctx, kernel)
	net, err := rig.NewNet(ctx, fmt.Sprintf("rhizome-demo-%d", os.Getpid()), "10.77.0.1/24")
	if err != nil {
		return err
	}
	defer net.Close()
	step("serving it in the network namespace " + net.Name)
	abs, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	server, err := net.Start(ctx, prefixed("serve"), abs, "--store", store, "serve", "debian-demo", "--interface", net.Bridge)
	if err != nil {
		return err
	}
	defer server.Stop()
	if _, _, err := server.Console.Wait(ctx, 0, `serve\.ready`); err != nil {
		return fmt.Errorf("serve did not start: %w", err)
	}
	return bootBoth(ctx, net, cpu)
}

func bootBoth(ctx context.Context, net *rig.Net, cpu []string) error {
	step("switching on two machines with " + strings.Join(cpu, " "))
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, errors.New("the machines did not come up in time"))
	defer cancel()
	begin := time.Now()
	var up []string
	var machines []*rig.Running
	defer func() {
		for _, m := range machines {
			m.Off()
		}
	}()
	for i := 1; i <= 2; i++ {
		m, err := net.Boot(ctx, rig.Machine{
			Name: fmt.Sprintf("n%d", i), MAC: fmt.Sprintf("52:54:00:77:00:%02x", i), MemoryMB: 512, CPU: cpu,
		}, nil)
		if err != nil {
			return err
		}
		machines = append(machines, m)
	}
	for i, m := range machines {
		line, _, err := m.Console.Wait(ctx, 0, `NODE-UP [^\r\n]*`)
		if err != nil {
			return fmt.Errorf("n%d: %w; its console ends with:\n%s", i+1, err, m.Console.Tail(3000))
		}
		up = append(up, line[0])
	}
	step(fmt.Sprintf("both machines are up, %s after power-on:", time.Since(begin).Round(time.Second)))
	for _, l := range up {
		fmt.Println(l)
	}
	return nil
}

func step(what string) { fmt.Printf("\n== %s\n", what) }

func prefixed(name string) func(string) {
	return func(line string) { fmt.Printf("%s | %s\n", name, line) }
}

func rhizome(ctx context.Context, out *os.File, args ...string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("rhizome %s: %w", strings.Join(args, " "), err)
	}
	return nil
}

func save(ctx context.Context, file string, args ...string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(rhizome(ctx, f, args...), f.Close())
}

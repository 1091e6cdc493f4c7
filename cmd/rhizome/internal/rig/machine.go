package rig

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Firmware is what a machine starts with.
type Firmware string

// The firmwares that QEMU gives us.
const (
	// BIOS is SeaBIOS with iPXE as the card's boot ROM.
	BIOS Firmware = "bios"
	// UEFI is OVMF with its own PXE and HTTP boot.
	UEFI Firmware = "uefi"
)

// Machine describes a diskless machine.
type Machine struct {
	Name     string
	MAC      string
	MemoryMB int
	Firmware Firmware
	// NIC is QEMU's model: "virtio-net-pci" unless named.
	NIC string
	// CPU is what Accelerate found; Emulation unless given.
	CPU []string
	// Extra are further QEMU arguments.
	Extra []string
}

// Running is a machine that was switched on.
type Running struct {
	Console *Console
	cmd     *exec.Cmd
	cancel  context.CancelFunc
	ended   chan struct{}
	in      *os.File
}

// Boot switches a machine on in the namespace. line, which may be nil, hears
// every line of its serial console.
func (n *Net) Boot(ctx context.Context, m Machine, line func(string)) (*Running, error) {
	tap, err := n.Tap(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := n.Command(ctx, qemuArgs(m, tap)...)
	r := &Running{Console: NewConsole(line), cmd: cmd, cancel: cancel, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.Console, r.Console
	stdin, out, err := os.Pipe()
	if err != nil {
		cancel()
		return nil, err
	}
	cmd.Stdin, r.in = stdin, out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("starting QEMU for %s: %w", m.Name, err)
	}
	stdin.Close()
	go func() {
		defer close(r.ended)
		r.Console.End(cmd.Wait())
	}()
	return r, nil
}

// Type writes to the machine's serial console.
func (r *Running) Type(s string) error {
	_, err := r.in.WriteString(s)
	return err
}

// Off takes the power away and waits until QEMU is gone.
func (r *Running) Off() {
	r.cancel()
	<-r.ended
	r.in.Close()
}

func qemuArgs(m Machine, tap string) []string {
	if m.NIC == "" {
		m.NIC = "virtio-net-pci"
	}
	if m.MemoryMB == 0 {
		m.MemoryMB = 512
	}
	args := []string{
		"qemu-system-x86_64", "-machine", "pc,graphics=off", "-smp", "1",
		"-m", strconv.Itoa(m.MemoryMB), "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-netdev", "tap,ifname=" + tap + ",script=no,downscript=no,id=n0",
		"-device", m.NIC + ",netdev=n0,mac=" + m.MAC,
	}
	if m.CPU == nil {
		m.CPU = Emulation
	}
	args = append(args, m.CPU...)
	if m.Firmware == UEFI {
		// Variables that the firmware sets are forgotten: every boot is the first.
		args = append(args, "-device", "virtio-rng-pci",
			"-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,format=raw,snapshot=on,file=/usr/share/OVMF/OVMF_VARS_4M.fd")
	} else {
		args = append(args, "-boot", "n")
	}
	return append(args, m.Extra...)
}

// Emulation is how QEMU runs a CPU without hardware's help. Linux takes this
// model for one without Meltdown, and leaves out the page table isolation whose
// switches cost the emulator a third of a boot.
var Emulation = []string{"-accel", "tcg,tb-size=128", "-cpu", "qemu64"}

// Accelerate returns QEMU's arguments for the fastest CPU that works here:
// hardware if this very kernel says its first words under it, else emulation.
// /dev/kvm alone says little: where virtualisation is itself virtualised, a
// kernel may hang in its decompressor.
func Accelerate(ctx context.Context, kernel string) []string {
	hardware := []string{"-accel", "kvm", "-cpu", "host"}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return Emulation
	}
	f.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	console := NewConsole(nil)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append(hardware, "-machine", "pc,graphics=off",
		"-m", "256", "-nographic", "-net", "none", "-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1")...)
	cmd.Stdout, cmd.Stderr = console, console
	if err := cmd.Start(); err != nil {
		return Emulation
	}
	go func() { console.End(cmd.Wait()) }()
	if _, _, err := console.Wait(ctx, 0, "Linux version"); err != nil {
		return Emulation
	}
	return hardware
}

// Command tftp is the tools of bench/tftp.sh: this project's TFTP server over one
// folder, and a client that asks for windows (RFC 7440) and falls back where the server
// knows none.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"rhizome/registry/imagefmt"
	"rhizome/serve/bootspec"
	"rhizome/serve/tftp"
)

func main() {
	verbs := map[string]func([]string) error{"serve": serve, "get": get}
	if len(os.Args) < 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: tftp serve|get [flags]")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "tftp "+os.Args[1]+":", err)
		os.Exit(1)
	}
}

// folder gives out one folder's files.
type folder string

func (d folder) Open(p string) (bootspec.File, error) {
	f, err := os.Open(filepath.Join(string(d), p))
	if err != nil {
		return bootspec.File{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return bootspec.File{}, err
	}
	return bootspec.File{ReaderAt: f, Size: info.Size()}, nil
}

func serve(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:69", "where to listen")
	dir := flags.String("dir", ".", "folder of the file")
	name := flags.String("name", "/file", "the one file that is served")
	_ = flags.Parse(args)
	at, err := net.ResolveUDPAddr("udp", *addr)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return err
	}
	m := bootspec.Machine{Node: imagefmt.Node{Name: "bench", Boot: imagefmt.Boot{Files: []string{*name}}}, Tree: folder(*dir)}
	s := &tftp.Server{Machines: func(netip.Addr) (bootspec.Machine, bool) { return m, true }}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return s.Serve(ctx, conn)
}

func get(args []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:69", "the server")
	name := flags.String("name", "file", "what to ask for")
	block := flags.Int("blksize", 1468, "block size in bytes")
	window := flags.Int("windowsize", 16, "blocks in flight; 1 asks for none")
	delay := flags.Duration("delay", 0, "how long each acknowledgement takes to the server")
	_ = flags.Parse(args)
	to, err := netip.ParseAddrPort(*addr)
	if err != nil {
		return err
	}
	began := time.Now()
	c, err := fetch(to, *name, *block, *window, *delay)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	fmt.Printf("%.1f %d %d %d\n", float64(c.bytes)/took/1e6, c.bytes, c.window, c.repeats)
	return nil
}

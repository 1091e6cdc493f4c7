package stick

import (
	"fmt"
	"io"
	"path"

	"rhizome/registry/imagefmt"
)

// program is where firmware looks on a removable disk (UEFI 2.10, section
// 3.5.1.1, "Removable Media Boot Behavior").
const program = "/EFI/BOOT/BOOTX64.EFI"

// ReadFile reads a file of the node's merged root.
type ReadFile func(path string) ([]byte, error)

// ForNode says what a stick for a node holds: the boot program out of its own
// root, and what makes that program go to the network.
func ForNode(c imagefmt.Cluster, n imagefmt.Node, read ReadFile) ([]File, error) {
	from, err := choose(n)
	if err != nil {
		return nil, err
	}
	data, err := read(from)
	if err != nil {
		return nil, fmt.Errorf("reading the boot program of node %q: %w", n.Name, err)
	}
	return append([]File{{Path: program, Data: data}}, directions(c, n)...), nil
}

// choose picks the program. iPXE's snponly.efi drives the card that the
// firmware loaded it from, which on a stick is none: ipxe.efi brings drivers of
// its own.
func choose(n imagefmt.Node) (string, error) {
	uefi := n.Boot.UEFI
	if n.Boot.OS == "linux" {
		for _, f := range append([]string{uefi}, n.Boot.Files...) {
			if path.Base(f) == "ipxe.efi" {
				return f, nil
			}
		}
		return "", fmt.Errorf("the boot spec of node %q names no ipxe.efi, which a stick needs: add `media: {ipxe: true}` to the recipe's stages", n.Name)
	}
	if uefi == "" {
		return "", fmt.Errorf("the boot spec of node %q names no boot program for UEFI", n.Name)
	}
	return uefi, nil
}

// directions are the files that lead the program to the network.
func directions(c imagefmt.Cluster, n imagefmt.Node) []File {
	if n.Boot.OS == "freebsd" {
		// loader.efi(8), "/efi/freebsd/loader.env": it takes its root from there before it
		// searches the disk that it was started from.
		return []File{{Path: "/EFI/freebsd/loader.env", Data: []byte("rootdev=net0:\n")}}
	}
	return both("autoexec.ipxe", Autoexec(c))
}

// both puts a file at the root and beside the program: iPXE of 2021 reads the
// one, of 2024 the other.
func both(name string, data []byte) []File {
	return []File{{Path: "/" + name, Data: data}, {Path: path.Join(path.Dir(program), name), Data: data}}
}

// Autoexec is the script that iPXE runs before anything else
// (ipxe.org/howto/autoexec). It names the server itself, so that any DHCP
// server on the wire will do. An iPXE too old to look for it (before 2021) does
// as this server's DHCP says, which is the same.
func Autoexec(c imagefmt.Cluster) []byte {
	return fmt.Appendf(nil, `#!ipxe
:start
dhcp || goto failed
chain --autofree http://%s/boot.ipxe || goto failed
:failed
echo Booting from %[1]s failed. Trying again in 5 seconds.
sleep 5
goto start
`, c.Network.Server)
}

// ReadAll makes a ReadFile of something that opens files.
func ReadAll[R io.ReadCloser](open func(string) (R, error)) ReadFile {
	return func(p string) ([]byte, error) {
		r, err := open(p)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	}
}

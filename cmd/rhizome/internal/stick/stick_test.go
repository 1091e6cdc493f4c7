package stick_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rhizome/cmd/rhizome/internal/stick"
	"rhizome/registry/imagefmt"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func linux() imagefmt.Node {
	return imagefmt.Node{Name: "n1", Boot: imagefmt.Boot{OS: "linux", Kernel: "/boot/vmlinuz", UEFI: "/ipxe/snponly.efi", Files: []string{"/ipxe/ipxe.efi"}}}
}

func cluster() imagefmt.Cluster {
	return imagefmt.Cluster{Name: "rack", Network: imagefmt.Network{Server: netip.MustParseAddr("10.77.0.1")}}
}

func files(t *testing.T, n imagefmt.Node) []stick.File {
	t.Helper()
	got, err := stick.ForNode(cluster(), n, func(p string) ([]byte, error) {
		return bytes.Repeat([]byte(p), 60000), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func write(t *testing.T, all []stick.File) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "stick.img")
	if err := stick.Write(to, all, epoch); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestStickReadsBackAsFirmwareReadsIt(t *testing.T) {
	all := files(t, linux())
	d, err := diskfs.Open(write(t, all), diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	table, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	if p := table.(*gpt.Table).Partitions[0]; p.Type != gpt.EFISystemPartition || p.Index != 1 {
		t.Errorf("the first partition is number %d of type %s", p.Index, p.Type)
	}
	esp, err := d.GetFilesystem(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		got, err := esp.ReadFile(strings.TrimPrefix(f.Path, "/"))
		if err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %d bytes of %d, %v", f.Path, len(got), len(f.Data), err)
		}
	}
}

// mtools reads the stick's file system, by code that is not go-diskfs's. The
// partition begins after the first MiB.
func TestMtoolsReadsTheStick(t *testing.T) {
	all := files(t, linux())
	img := write(t, all)
	for _, f := range all {
		got, err := exec.Command("mtype", "-i", img+"@@1M", "::"+f.Path).Output()
		if err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %d bytes of %d, %v", f.Path, len(got), len(f.Data), err)
		}
	}
}

func TestSameFilesGiveTheSameStick(t *testing.T) {
	one, err := os.ReadFile(write(t, files(t, linux())))
	if err != nil {
		t.Fatal(err)
	}
	// FAT's clock ticks every two seconds.
	time.Sleep(2100 * time.Millisecond)
	two, err := os.ReadFile(write(t, files(t, linux())))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("the two sticks differ")
	}
}

func TestStickTakesTheProgramThatBringsDrivers(t *testing.T) {
	if got := files(t, linux())[0]; got.Path != "/EFI/BOOT/BOOTX64.EFI" || !bytes.HasPrefix(got.Data, []byte("/ipxe/ipxe.efi")) {
		t.Errorf("%s holds %.20q", got.Path, got.Data)
	}
	bsd := imagefmt.Node{Name: "b", Boot: imagefmt.Boot{OS: "freebsd", UEFI: "/boot/loader.efi"}}
	got := files(t, bsd)
	if !bytes.HasPrefix(got[0].Data, []byte("/boot/loader.efi")) || string(got[1].Data) != "rootdev=net0:\n" {
		t.Errorf("FreeBSD's stick holds %.20q and %q", got[0].Data, got[1].Data)
	}
}

func TestStickSaysWhatTheRecipeLacks(t *testing.T) {
	n := linux()
	n.Boot.Files = nil
	_, err := stick.ForNode(cluster(), n, nil)
	if err == nil || !strings.Contains(err.Error(), "media: {ipxe: true}") {
		t.Errorf("without ipxe.efi: %v", err)
	}
	_, err = stick.ForNode(cluster(), linux(), func(string) ([]byte, error) { return nil, fs.ErrNotExist })
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("with a program that is not there: %v", err)
	}
}

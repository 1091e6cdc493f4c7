// Package stick writes boot sticks: a disk image with a GUID partition table
// and one EFI system partition (UEFI 2.10, sections 5.3 and 13.3) for machines
// whose firmware boots from no network. The stick holds a boot program and
// nothing of any node, so one serves a whole rack.
package stick

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	diskfs "github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// File is a file of the stick's EFI system partition. Path is absolute.
type File struct {
	Path string
	Data []byte
}

const (
	sector = 512
	// firstSector leaves the first MiB free, as every partitioning tool does.
	firstSector = 2048
	// tableSectors is the second copy of the table, at the disk's end.
	tableSectors = 33
	// leastBytes keeps the partition above FAT32's 65,525 clusters of a sector:
	// with fewer, firmware would read it as FAT16.
	leastBytes = 48 << 20
	// partition is the number of the only one. It must be given: an entry with
	// number 0 is written where no firmware looks.
	partition = 1
	label     = "RHIZOME"
)

// Write writes a boot stick to a file that does not exist yet. The same files
// give the same bytes: every time in it is epoch, and the disk's GUIDs come
// from the files.
func Write(to string, files []File, epoch time.Time) (err error) {
	size := sizeFor(files)
	d, err := diskfs.Create(to, size, diskfs.SectorSizeDefault)
	if err != nil {
		return fmt.Errorf("making the disk image: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.Partition(table(size, files)); err != nil {
		return fmt.Errorf("writing the partition table: %w", err)
	}
	esp, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: partition, FSType: filesystem.TypeFat32, VolumeLabel: label, Reproducible: true})
	if err != nil {
		return fmt.Errorf("making the EFI system partition: %w", err)
	}
	// The label is an entry of the root folder, with times.
	if err := esp.Chtimes("/"+label, epoch, epoch, epoch); err != nil {
		return fmt.Errorf("setting the time of the label: %w", err)
	}
	for _, f := range files {
		if err := put(esp, f, epoch); err != nil {
			return fmt.Errorf("writing %q to the EFI system partition: %w", f.Path, err)
		}
	}
	return nil
}

func sizeFor(files []File) int64 {
	size := int64(leastBytes)
	for _, f := range files {
		size += int64(len(f.Data))
	}
	const mib = 1 << 20
	return (size + mib - 1) / mib * mib
}

func table(size int64, files []File) *gpt.Table {
	return &gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true,
		GUID: guid("disk", files),
		Partitions: []*gpt.Partition{{
			Index: partition, Start: firstSector, End: uint64(size/sector - tableSectors - 1),
			Type: gpt.EFISystemPartition, Name: "rhizome boot", GUID: guid("partition", files),
		}},
	}
}

// guid makes an identifier out of what the stick holds (RFC 9562, section 5.8:
// version 8, for identifiers made in ways of one's own).
func guid(what string, files []File) string {
	h := sha256.New()
	fmt.Fprintln(h, what)
	for _, f := range files {
		fmt.Fprintln(h, f.Path, len(f.Data))
		h.Write(f.Data)
	}
	b := h.Sum(nil)[:16]
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func put(esp filesystem.FileSystem, f File, epoch time.Time) error {
	if err := makeDirs(esp, path.Dir(f.Path), epoch); err != nil {
		return err
	}
	w, err := esp.OpenFile(f.Path, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	n, err := w.Write(f.Data)
	if err == nil && n < len(f.Data) {
		err = io.ErrShortWrite
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return esp.Chtimes(f.Path, epoch, epoch, epoch)
}

// makeDirs makes a folder with those above it. Their own entries "." and ".."
// have times as well.
func makeDirs(esp filesystem.FileSystem, dir string, epoch time.Time) error {
	if dir == "/" {
		return nil
	}
	if err := makeDirs(esp, path.Dir(dir), epoch); err != nil {
		return err
	}
	if err := esp.Mkdir(dir); err != nil {
		return err
	}
	for _, name := range []string{dir, dir + "/.", dir + "/.."} {
		if err := esp.Chtimes(name, epoch, epoch, epoch); err != nil {
			return err
		}
	}
	return nil
}

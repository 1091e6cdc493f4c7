package debiankernel

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Drivers are the modules that every initramfs carries where the kernel has
// them: the cards of virtual machines, the common ones of servers and boards,
// and NFS. udev loads the one that the machine needs. They are few on purpose:
// the whole initramfs goes over the wire to each node at each boot.
var Drivers = []string{
	// QEMU, VMware, Hyper-V, Xen, the clouds.
	"virtio_pci", "virtio_net", "vmxnet3", "hv_netvsc", "xen-netfront", "ena", "gve",
	// Intel.
	"e1000", "e1000e", "igb", "igbvf", "igc", "ixgbe", "ixgbevf", "i40e", "iavf", "ice",
	// Realtek, with the PHY that r8169 does not work without.
	"r8169", "realtek", "8139cp", "8139too",
	// Broadcom, Nvidia, Marvell.
	"tg3", "broadcom", "bnxt_en", "mlx4_core", "mlx4_en", "mlx5_core", "sky2", "atlantic", "pcnet32", "forcedeth",
	// The root itself; af_packet is what ipconfig asks DHCP through.
	"af_packet", "nfs", "nfsv3",
}

var moduleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*$`)

// checkNames refuses what could not be a module's name, before it comes near a
// shell.
func checkNames(modules []string) error {
	for _, m := range modules {
		if !moduleName.MatchString(m) {
			return fmt.Errorf("%q is not the name of a kernel module: it has letters, digits, \"_\" and \"-\", and no \".ko\"", m)
		}
	}
	return nil
}

// writeScript puts the hook where mmdebstrap can run it.
func writeScript(work string, modules []string) (string, error) {
	name := filepath.Join(work, "initramfs.sh")
	if err := os.WriteFile(name, []byte(script(modules)), 0o755); err != nil {
		return "", fmt.Errorf("writing the hook that makes the initramfs: %w", err)
	}
	return filepath.Abs(name)
}

// script is the hook that makes the initramfs, run with the root as "$1".
//
// BOOT=nfs makes it mount nfsroot= (initramfs-tools(7)). MODULES=list leaves
// out all that is not named here; the names go through a hook rather than
// through /etc/initramfs-tools/modules, whose modules would all be loaded at
// every boot. overlay is, which the early script lays /etc and the bundle by: loaded
// from the root it costs a node some sixty calls.
//
// nfs-top/rhizome brings the card up and waits for its link. ipconfig(8) of klibc
// sends its first DISCOVER at once; before the link is up that is lost, and the
// next one comes ten seconds later. operstate(sysfs) says "up" only when the kernel
// also sends: the carrier alone comes up to a second before.
//
// RESUME keeps the builder's own swap out. Level 9 is a tenth larger
// than 19, and a twentieth of the work.
func script(modules []string) string {
	return strings.NewReplacer("@DRIVERS@", strings.Join(Drivers, " "), "@MODULES@", strings.Join(modules, " ")).Replace(`#!/bin/sh
set -eu
root=$1
unset TMPDIR
count=0
for k in "$root"/boot/vmlinuz-*; do count=$((count + 1)); version=${k##*/vmlinuz-}; done
if [ "$count" != 1 ] || [ "$version" = "*" ]; then exit 0; fi
for m in @MODULES@; do
	chroot "$root" modinfo -k "$version" -n "$m" >/dev/null 2>&1 || { echo "E: the kernel $version has no module $m" >&2; exit 1; }
done
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/hooks"
cat >"$root/etc/initramfs-tools/conf.d/rhizome" <<'END'
MODULES=list
BOOT=nfs
BUSYBOX=auto
COMPRESS=zstd
COMPRESSLEVEL=9
RESUME=none
END
cat >"$root/etc/initramfs-tools/hooks/rhizome" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
for m in @DRIVERS@ @MODULES@; do
	modinfo -k "${version}" -n "$m" >/dev/null 2>&1 && manual_add_modules "$m"
done
modinfo -k "${version}" -n overlay >/dev/null 2>&1 && force_load overlay
exit 0
END
mkdir -p "$root/etc/initramfs-tools/scripts/nfs-top"
cat >"$root/etc/initramfs-tools/scripts/nfs-top/rhizome" <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
command -v ip >/dev/null || exit 0
mac=
read -r words </proc/cmdline
for word in $words; do
	case $word in BOOTIF=??-*) mac=$(echo "${word#BOOTIF=??-}" | tr A-F- a-f:) ;; esac
done
linked() {
	for card in /sys/class/net/*; do
		[ -e "$card/device" ] && read -r address <"$card/address" || continue
		[ "$address" = "${mac:-$address}" ] && ip link set dev "${card##*/}" up || continue
		read -r state <"$card/operstate" && case $state in
		up) return ;;
		unknown) [ "$(cat "$card/carrier")" = 1 ] && return ;;
		esac
	done 2>/dev/null
	return 1
}
tries=0
until linked || [ $tries = 100 ]; do
	tries=$((tries + 1))
	sleep 0.1
done
exit 0
END
chmod 755 "$root/etc/initramfs-tools/hooks/rhizome" "$root/etc/initramfs-tools/scripts/nfs-top/rhizome"
chroot "$root" mkinitramfs -o "/boot/initrd.img-$version" "$version"
`)
}

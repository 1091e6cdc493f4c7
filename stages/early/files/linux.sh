#!/bin/sh
# rhizome-early: what a node does before its init.
#
# The kernel starts this as process 1 (init= on its command line) when Debian's
# initramfs has mounted the root, read-only, over NFS. It lays memory file
# systems, mounts what the node may write, has rhizome-node fill memory, and
# hands over to the system's own init. Each step is named on the console and at
# the server. One that fails is named too, and the node goes on.
#
# shellcheck disable=SC1090,SC1091,SC2317
# What to do stands in /etc/rhizome/early.conf, which the recipe makes; what is
# served, and from where, rhizome-node asks the server.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
conf=/etc/rhizome/early.conf
node=/usr/sbin/rhizome-node
place=/usr/lib/rhizome/root
here=/run/rhizome
agent=
# What early.conf may set; see docs/node.md.
root=nfs etc='' persist='' shared='' tmpfs='' secrets=''

say() { printf 'rhizome-early: %s\n' "$*"; }

tell() { [ -z "$agent" ] || printf '%s\n' "$1" >&3; }

# report STEP STATE MESSAGE: to the console, but for beginnings, and the server.
# tar(1) and cp(1) name every file that did not fit: what the server takes of a
# message is enough, and a long one would fill the fifo.
report() {
	set -- "$1" "$2" "$(printf '%.400s' "$3")"
	[ "$2" = begin ] || say "$1: $2${3:+: $3}"
	tell "report	$1	$2	$3"
}

# try STEP COMMAND ARGUMENTS: reports what became of it. Blanks and line ends in
# what it printed become single blanks.
try() {
	step=$1
	shift
	report "$step" begin
	if said=$("$@" 2>&1); then state=ok; else state=failed; fi
	set -f
	# shellcheck disable=SC2086
	set -- $said
	set +f
	report "$step" "$state" "$*"
	[ "$state" = ok ]
}

# ask QUESTION: waits for rhizome-node's answer, of which $state gets the first
# word, $said the rest. An agent that dies answers "gone".
ask() {
	state=failed said="rhizome-node does not run"
	[ -n "$agent" ] || return 1
	printf '%s\n' "$1" >&3
	IFS=' ' read -r state said <&4 || state=gone
	if [ "$state" = gone ]; then
		agent='' state=failed said="rhizome-node ended"
	fi
	[ "$state" = ok ]
}

# step STEP QUESTION: has rhizome-node do it; it reports by itself.
step() {
	report "$1" begin
	ask "$2"
	say "$1: $state${said:+: $said}"
	if [ -z "$agent" ]; then say "$1: failed: nothing more is told to the server"; fi
	[ "$state" = ok ]
}

kernel_file_systems() {
	[ -e /proc/self/mounts ] || mount -t proc -o nosuid,nodev,noexec proc /proc || return 1
	[ -d /sys/kernel ] || mount -t sysfs -o nosuid,nodev,noexec sysfs /sys || return 1
	[ -c /dev/null ] || mount -t devtmpfs -o nosuid,mode=0755 devtmpfs /dev || return 1
	mkdir -p "$here" 2>/dev/null && return
	mount -t tmpfs -o nosuid,nodev,mode=0755 tmpfs /run && mkdir -p "$here"
}

# read_ahead KIB sets how far the kernel reads ahead on the root, where it reads
# less far ($ahead), and fails where it does not, or cannot be told.
read_ahead() {
	knob='' ahead=0
	while read -r _ _ dev _ at _; do
		[ "$at" != / ] || knob=/sys/class/bdi/$dev/read_ahead_kb
	done </proc/self/mountinfo
	[ -w "$knob" ] && read -r ahead <"$knob" && [ "$ahead" -lt "$1" ] && echo "$1" >"$knob"
}

# agent_start runs rhizome-node beside this script: questions go through one
# fifo, answers come through another. Both are held open for reading and writing
# here, so that nothing blocks if it dies.
agent_start() {
	[ -x "$node" ] || { say "there is no $node: going on without it, nothing is told to the server"; return 1; }
	rm -f "$here/ask" "$here/answer"
	mkfifo -m 0600 "$here/ask" "$here/answer" || return 1
	exec 3<>"$here/ask" 4<>"$here/answer"
	# All of the program is read as it starts: by a megabyte, in a few calls.
	read_ahead 1024 || knob=''
	(
		exec <"$here/ask" >"$here/answer" 3>&- 4>&-
		"$node" early
		echo gone
		# Whoever tells more does not wait for a fifo that nobody empties.
		while read -r _; do :; done
	) &
	agent=yes
	ask "hello $server"
	[ -z "$knob" ] || echo "$ahead" >"$knob"
	say "rhizome-node: $state${said:+: $said}"
	[ -n "$agent" ] && [ -r "$here/plan" ] && . "$here/plan"
}

# boot_server finds the server and this node's name where the kernel or the
# initramfs found them.
boot_server() {
	server='' name=''
	read -r words </proc/cmdline
	for word in $words; do
		case $word in
		nfsroot=*)
			word=${word#nfsroot=}
			word=${word%%,*}
			server=${word%%:*} name=${word##*/}
			;;
		esac
	done
}

# nfs EXPORT PATH: writable, and so waited for as long as it takes; the kernel's
# own mount, which needs no helper and no lock manager.
nfs() {
	[ -n "$1" ] || { echo "the server offers no export for $2"; return 1; }
	[ -d "$2" ] || { echo "there is no folder $2 to mount it on"; return 1; }
	mount -i -t nfs -o "rw,vers=3,proto=tcp,mountproto=tcp,nolock,noacl,hard,addr=${1%%:*}" "$1" "$2"
}

# has_overlay loads overlayfs where it is a module and modprobe is there.
has_overlay() {
	while read -r one two; do
		[ "${two:-$one}" = overlay ] && return
	done </proc/filesystems
	modprobe overlay 2>/dev/null
}

# one_tmpfs MODE SIZE PATH lays a memory file system; /var gets what the image
# has there, but for large parts that are only read, which stay the image's.
one_tmpfs() {
	options="rw,nosuid,mode=$1"
	[ "$2" = - ] || options=$options,size=$2
	case $3 in
	/run)
		mount -o "remount,$options" /run 2>/dev/null || mount -t tmpfs -o "$options" tmpfs /run
		return
		;;
	/var) ;;
	*)
		mount -t tmpfs -o "$options" tmpfs "$3"
		return
		;;
	esac
	mkdir -p "$here/new" && mount -t tmpfs -o "$options" tmpfs "$here/new" || return 1
	if ! fill_var "$here/new"; then
		umount "$here/new"
		echo "copying /var from the image did not succeed; /var stays read-only"
		return 1
	fi
	mount -n --move "$here/new" /var || return 1
	[ ! -d "$here/image/var/lib/dpkg" ] || mount --bind "$here/image/var/lib/dpkg" /var/lib/dpkg
}

# fill_var copies /var without the package database, which the image keeps, and
# without caches: a thousand small files would be most calls of a boot.
fill_var() {
	if [ -x /usr/bin/tar ] || [ -x /bin/tar ]; then
		{
			tar -C /var --exclude='./lib/dpkg/*' --exclude='./cache/*/*' --exclude='./lib/apt/lists/*' --numeric-owner -cf - . ||
				: >"$here/unread"
		} | tar -C "$1" --numeric-owner -xpf - && [ ! -e "$here/unread" ]
	else
		cp -a /var/. "$1/"
	fi
}

etc_volatile() {
	mkdir -p "$here/etc/upper" "$here/etc/work" || return 1
	chmod 0755 "$here/etc/upper"
	if has_overlay && mount -t overlay -o "lowerdir=/etc,upperdir=$here/etc/upper,workdir=$here/etc/work" overlay /etc 2>/dev/null; then
		return
	fi
	# No overlayfs in this kernel: a copy does the same, with a thousand calls.
	mkdir -p "$here/new" && mount -t tmpfs -o mode=0755 tmpfs "$here/new" && cp -a /etc/. "$here/new/" &&
		mount -n --move "$here/new" /etc && echo "copied: the kernel has no overlayfs"
}

# in_memory moves into the root that rhizome-node unpacked, and begins again
# there. The NFS root is let go.
in_memory() {
	for pattern in $secrets; do
		for file in $pattern; do
			[ -e "$file" ] && mkdir -p "$place${file%/*}" && cp -p "$file" "$place$file"
		done
	done
	mkdir -p "$place/proc" "$place/sys" "$place/dev" "$place/run" "$place$place"
	# -n: mount(8) keeps notes below /run, which is being moved.
	for m in /proc /sys /dev /run; do mount -n --move $m "$place$m"; done
	cd "$place" && pivot_root . ".$place" && exec chroot . /usr/sbin/rhizome-early --in-memory "$@"
	cd /
	for m in /run /dev /sys /proc; do mount -n --move "$place$m" $m; done
}

root_in_memory() {
	mount -t tmpfs -o mode=0755,size=100% rhizome-root "$place" || return 1
	if step root "ram $place"; then
		in_memory "$@"
		report root failed "moving into the root in memory did not succeed"
	fi
	umount "$place"
	say "root: going on over NFS"
	return 1
}

memory() {
	# shellcheck disable=SC2086
	while read -r mode size path; do
		[ -z "$path" ] || try "tmpfs $path" one_tmpfs "$mode" "$size" "$path"
	done <<END
$tmpfs
END
}

precache() {
	mkdir -p "$here/bundle" && has_overlay
	step precache "fill $here/bundle" || true
}

writable() {
	case $etc in
	volatile) try "etc volatile" etc_volatile ;;
	persistent) try "etc persistent" nfs "${plan_etc:-$server:/cow/$name/etc}" /etc ||
		try "etc volatile" etc_volatile ;;
	esac
	[ -z "$persist" ] || try "persist $persist" nfs "${plan_persist:-$server:/persist/$name}" "$persist"
	[ -z "$shared" ] || try "shared $shared" nfs "$plan_shared" "$shared"
}

hand_over() {
	tell end
	exec 3>&- 4>&-
	for init in /sbin/init /usr/lib/systemd/systemd /bin/init; do
		if [ -x $init ]; then exec $init "$@"; fi
	done
	say "there is no init in this root: a shell instead"
	exec /bin/sh
}

plan_root='' plan_etc='' plan_persist='' plan_shared=''
if [ "$1" = --in-memory ]; then
	shift
	agent=yes inside=yes
	umount -l "$place"
	[ -r "$here/plan" ] && . "$here/plan"
else
	inside=''
	kernel_file_systems || say "mounting /proc, /sys, /dev and /run did not succeed"
fi
if [ -r "$conf" ]; then . "$conf"; else say "there is no $conf: nothing is laid over the root"; fi
boot_server
[ -n "$inside" ] || agent_start
if [ -z "$inside" ] && [ "${plan_root:-$root}" = ram ]; then root_in_memory "$@"; fi
if ! { mkdir -p "$here/image" && mount -n --bind / "$here/image"; }; then
	report image failed "the image cannot be mounted at $here/image"
fi
# The bundle first: /var is filled from it, by programs that lie in it.
[ "${plan_root:-$root}" != precache ] || precache
memory
writable
hand_over "$@"

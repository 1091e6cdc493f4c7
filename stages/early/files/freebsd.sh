#!/bin/sh
# rhizome-early: what a node does before rc.
#
# init(8) runs this (kenv init_script) before rc and before fstab is read, with
# the root mounted read-only over NFS and the network up. It lays memory file
# systems, mounts what the node may write, fills memory and returns; init goes on
# with rc, inside init_chroot(8) where the whole root was read into memory. Each
# step is named on the console and at the server. One that fails is named too,
# and the node goes on.
#
# shellcheck disable=SC1090,SC2317
# Everything here is in the base, but for rhizome-node, which talks with the
# server: it tells of each step, asks for the plan and reads blobs. Without it the
# node goes on, with no bundle and no root in memory. What to do stands in
# /etc/rhizome/early.conf, which the recipe makes.

PATH=/sbin:/bin:/usr/sbin:/usr/bin
export PATH
conf=/etc/rhizome/early.conf
node=/sbin/rhizome-node
place=/usr/lib/rhizome/root
here=/var/run/rhizome
agent=
# What happened before rhizome-node could be told.
untold=
# In front of every path once the root lies in memory.
top=
# What early.conf may set; see docs/node.md.
root=nfs etc='' persist='' shared='' tmpfs='' secrets=''
# What rhizome-node writes of the server's plan.
plan_root='' plan_layers=0 plan_folders='' plan_etc='' plan_persist='' plan_shared=''

say() { echo "rhizome-early: $*" >/dev/console; }

# report STEP STATE MESSAGE: to the console, but for beginnings, and the server.
# tar(1) and cp(1) name every file that did not fit: what the server takes of a
# message is enough, and a long one would fill the fifo.
report() {
	set -- "$1" "$2" "$(printf '%.400s' "$3")"
	[ "$2" = begin ] || say "$1: $2${3:+: $3}"
	if [ -n "$agent" ]; then
		printf 'report\t%s\t%s\t%s\n' "$1" "$2" "$3" >&3
	else
		untold="$untold$1	$2	$3
"
	fi
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

# ask QUESTION: rhizome-node's answer becomes $state and $said.
ask() {
	state=failed said='rhizome-node is gone'
	[ -n "$agent" ] || return 1
	printf '%s\n' "$1" >&3
	answer
}

answer() {
	read -r state said <&4 || state=gone
	[ "$state" = gone ] || return 0
	agent='' state=failed said='rhizome-node is gone'
	return 1
}

# agent_start runs rhizome-node beside this script: questions go through one
# fifo, answers come through another. Both are held open for reading and writing
# here, so that nothing blocks if it dies.
agent_start() {
	[ -x "$node" ] || { say "there is no $node: going on without it, nothing is told to the server"; return 1; }
	# /var may be the image's, read-only.
	mkdir -p "$here" 2>/dev/null || { mount -t tmpfs -o rw,mode=0755 tmpfs "${here%/*}" && mkdir -p "$here"; } || return 1
	rm -f "$here/ask" "$here/answer" && mkfifo -m 0600 "$here/ask" "$here/answer" || return 1
	exec 3<>"$here/ask" 4<>"$here/answer"
	(
		exec <"$here/ask" >"$here/answer" 3>&- 4>&-
		"$node" early
		echo gone
		# Whoever tells more does not wait for a fifo that nobody empties.
		while read -r _; do :; done
	) &
	agent=yes
	if ask "hello $server"; then
		printf '%s' "$untold" | while IFS= read -r line; do printf 'report\t%s\n' "$line" >&3; done
		[ ! -r "$here/plan" ] || . "$here/plan"
	fi
	say "rhizome-node: $state${said:+: $said}"
}

# one_tmpfs MODE SIZE PATH lays a memory file system; /var gets its folders from
# mtree(8) and what the image has there.
one_tmpfs() {
	options="rw,nosuid,mode=$1"
	[ "$2" = - ] || options=$options,size=$2
	if [ "$3" != /var ]; then
		mount -t tmpfs -o "$options" tmpfs "$3"
		return
	fi
	copied /var "$options" || return 1
	# After what is unpacked: it makes /var/empty immutable.
	mtree -deiqU -f /etc/mtree/BSD.var.dist -p /var >/dev/null
	mkdir -p "$here"
}

# copied FOLDER OPTIONS lays a memory file system with what the image has there.
# Nothing can be moved: it waits in memory beside. What cannot be copied whole stays
# as it is.
copied() {
	mount -t tmpfs -o rw,mode=0700 tmpfs "$place" || return 1
	state=1
	if tar -C "$1" -cf "$place/copy.tar" . && mount -t tmpfs -o "$2" tmpfs "$1"; then
		if tar -C "$1" -xpf "$place/copy.tar"; then state=0; else umount "$1"; fi
	fi
	umount "$place"
	return "$state"
}

memory() {
	# shellcheck disable=SC2086
	while read -r mode size path; do
		[ -z "$path" ] || try "tmpfs $path" one_tmpfs "$mode" "$size" "$path"
	done <<END
$tmpfs
END
}

# nfs EXPORT PATH: writable, and so waited for as long as it takes. No lock
# manager is served.
nfs() {
	[ -n "$1" ] || { echo "the server offers no export for $2"; return 1; }
	[ -d "$2" ] || { echo "there is no folder $2 to mount it on"; return 1; }
	mount -t nfs -o rw,nfsv3,tcp,nolockd "$1" "$2"
}

# etc_volatile is a copy in memory: unionfs is not to be trusted with /etc.
etc_volatile() { copied /etc rw,mode=0755; }

# precache has the bundle read into memory. On a slow link that goes on when
# userland is up, so that no boot is later for it.
precache() {
	report precache begin
	if ! { mkdir -p "$here/blob" "$here/bundle" && mount -t tmpfs -o rw,mode=0700 tmpfs "$here/blob"; } 2>/dev/null; then
		report precache failed "no memory file system for the bundle"
		return
	fi
	ask "bundle $here/blob/bundle"
	if [ "$state" != later ]; then
		bundle_read
		return
	fi
	say "precache: skipped: $said"
	later=yes
	(
		answer
		bundle_read
		echo end >&3
	) &
}

# bundle_read goes on with rhizome-node's answer; but for "ok" it told the server.
bundle_read() {
	if [ "$state" = ok ]; then
		lay_bundle
	else
		umount "$here/blob"
		say "precache: $state: $said"
	fi
}

# holds_mount FOLDER: something is mounted in it, which would be hidden.
holds_mount() {
	mount -p | {
		while read -r _ on _; do
			case $on in "$1"/*) exit 0 ;; esac
		done
		exit 1
	}
}

# lay_bundle puts the bundle's folders over the root's: by tarfs on the blob as it
# is, else unpacked.
lay_bundle() {
	note=$said
	kldload -n nullfs 2>/dev/null
	kldload -n tarfs 2>/dev/null
	how=tarfs
	if ! mount -r -t tarfs "$here/blob/bundle" "$here/bundle" 2>"$here/why"; then
		how="unpacked, for tarfs did not take it"
		if ! { mount -t tmpfs -o rw,mode=0755 tmpfs "$here/bundle" && tar -C "$here/bundle" -xpf "$here/blob/bundle"; } 2>"$here/why"; then
			umount "$here/bundle"
			umount "$here/blob"
			read -r why <"$here/why"
			report precache failed "going on without the bundle: $why"
			return
		fi
		umount "$here/blob"
	fi
	laid='' state=ok
	while IFS= read -r folder; do
		# What the node mounted while the bundle came.
		if [ -n "$later" ] && holds_mount "$folder"; then
			note="${note:+$note; }$folder stays as it is: something is mounted in it"
		elif [ -d "$here/bundle$folder" ] && mount -t nullfs -o ro "$here/bundle$folder" "$folder" 2>"$here/why"; then
			laid="$laid $folder"
		else
			state=failed
		fi
	done <<END
$plan_folders
END
	echo precache >"$here/root"
	report precache $state "$how:${laid:- no folder}${note:+; $note}"
}

# layer NUMBER lays one layer over the root in memory: whiteouts first, for they
# speak of the layers below.
layer() {
	ask "layer $1 $here/blob/layer"
	[ -z "$said" ] || echo "$said"
	[ "$state" = ok ] || return 1
	tar -tf "$here/blob/layer" | while IFS= read -r path; do
		case /$path in
		*/.wh..wh..opq) find "$place/${path%.wh..wh..opq}" -mindepth 1 -delete ;;
		*/.wh.*)
			marker=${path##*/}
			rm -rf "${place:?}/${path%"$marker"}${marker#.wh.}"
			;;
		esac
	done
	# Without file flags: what one layer made immutable, the next one replaces.
	# -p asks for them, so what takes them back comes after it.
	tar -C "$place" -xp --no-fflags --exclude '.wh.*' -f "$here/blob/layer"
}

# root_in_memory reads every layer into memory, and has init go on in there.
root_in_memory() {
	[ "$plan_layers" -gt 0 ] || { echo "the plan names no layers"; return 1; }
	mkdir -p "$here/blob" && mount -t tmpfs -o rw,mode=0700 tmpfs "$here/blob" || return 1
	mount -t tmpfs -o rw,mode=0755 tmpfs "$place" || { umount "$here/blob"; return 1; }
	number=1
	while [ "$number" -le "$plan_layers" ]; do
		layer "$number" || { umount "$here/blob"; umount "$place"; return 1; }
		number=$((number + 1))
	done
	umount "$here/blob"
	for file in $secrets; do
		[ ! -e "$file" ] || { mkdir -p "$place${file%/*}" && cp -p "$file" "$place$file"; }
	done
	mkdir -p "$place/dev" "$place$here" && cp -p "$here/server" "$here/token" "$place$here/" 2>/dev/null
	echo ram >"$place$here/root"
	mount -t devfs devfs "$place/dev" && kenv "init_chroot=$place" >/dev/null
}

writable() {
	case $etc in
	volatile) [ -n "$top" ] || try "etc volatile" etc_volatile ;;
	persistent) try "etc persistent" nfs "${plan_etc:-$server:/cow/$name/etc}" "$top/etc" || [ -n "$top" ] || try "etc volatile" etc_volatile ;;
	esac
	[ -z "$persist" ] || try "persist $persist" nfs "${plan_persist:-$server:/persist/$name}" "$top$persist"
	[ -z "$shared" ] || try "shared $shared" nfs "$plan_shared" "$top$shared"
}

if [ -r "$conf" ]; then . "$conf"; else say "there is no $conf: nothing is laid over the root"; fi
server=$(kenv -q boot.nfsroot.server)
name=$(kenv -q boot.nfsroot.path)
name=${name##*/}
later=''
memory
agent_start
root=${plan_root:-$root}
if [ "$root" = ram ] && try root root_in_memory; then top=$place; fi
[ "$root" != precache ] || precache
writable
# Where a bundle comes later, that ends it.
if [ -n "$agent" ] && [ -z "$later" ]; then echo end >&3; fi
exec 3>&- 4>&-
# init goes on with rc only where its script ends well.
exit 0

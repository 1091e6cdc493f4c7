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
# Everything here is in the base, but for rhizome-node, which tells the server
# and fetches what only root may read. Without it the node goes on without both.
# What to do stands in /etc/rhizome/early.conf, which the recipe makes.

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
# Seconds that a boot waits for a bundle before it goes on without.
patience=4

say() { echo "rhizome-early: $*" >/dev/console; }

# report STEP STATE MESSAGE: to the console, but for beginnings, and the server.
report() {
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

# agent_start runs rhizome-node beside this script: questions go through one
# fifo, answers come through another. Both are held open for reading and writing
# here, so that nothing blocks if it dies.
agent_start() {
	[ -x "$node" ] || { say "there is no $node: going on without it, nothing is told to the server"; return 1; }
	mkdir -p "$here" && rm -f "$here/ask" "$here/answer" && mkfifo -m 0600 "$here/ask" "$here/answer" || return 1
	exec 3<>"$here/ask" 4<>"$here/answer"
	(
		exec <"$here/ask" >"$here/answer" 3>&- 4>&-
		"$node" early
		echo gone
	) &
	agent=yes
	printf 'hello %s\n' "$server" >&3
	read -r state said <&4 || state=gone
	[ "$state" != gone ] || agent=
	[ -z "$agent" ] || printf '%s' "$untold" | while IFS= read -r line; do printf 'report\t%s\n' "$line" >&3; done
	say "rhizome-node: $state${said:+: $said}"
}

# one_tmpfs MODE SIZE PATH lays a memory file system; /var gets its folders from
# mtree(8) and what the image has there.
one_tmpfs() {
	options="rw,nosuid,mode=$1"
	[ "$2" = - ] || options=$options,size=$2
	if [ "$3" = /var ]; then
		# Nothing can be moved: what the image has waits in memory.
		mount -t tmpfs -o rw,mode=0700 tmpfs "$place" && tar -C /var -cf "$place/var.tar" . || return 1
	fi
	if ! mount -t tmpfs -o "$options" tmpfs "$3"; then
		[ "$3" != /var ] || umount "$place"
		return 1
	fi
	[ "$3" = /var ] || return 0
	# mtree last: it makes /var/empty immutable.
	tar -C /var -xpf "$place/var.tar"
	state=$?
	mtree -deiqU -f /etc/mtree/BSD.var.dist -p /var >/dev/null
	umount "$place"
	mkdir -p "$here"
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
etc_volatile() {
	mount -t tmpfs -o rw,mode=0700 tmpfs "$place" && tar -C /etc -cf "$place/etc.tar" . || return 1
	mount -t tmpfs -o rw,mode=0755 tmpfs /etc && tar -C /etc -xpf "$place/etc.tar"
	state=$?
	umount "$place"
	return "$state"
}

# after TEXT MARK prints what follows a mark in a text, up to the next quote,
# comma or bracket: all that is needed of the plan's JSON.
after() {
	case $1 in
	*"$2"*) ;;
	*) return 1 ;;
	esac
	after_rest=${1#*"$2"}
	after_rest=${after_rest#\"}
	echo "${after_rest%%[\",\]\}]*}"
}

# ask_plan asks the server what this node boots from; open to anybody here.
ask_plan() {
	report plan begin
	if plan=$(fetch -q -T 5 -o - "http://$server/node/v1/plan" 2>"$here/why") && [ -n "$plan" ]; then
		report plan ok
		return
	fi
	plan='' why=''
	read -r why <"$here/why"
	report plan failed "the server was not to be asked: $why"
}

# get URL FILE goes on where an earlier attempt ended. Where HTTP fails
# rhizome-node reads the same over NFS, and says so.
get() {
	if [ -x "$node" ]; then
		"$node" early get "$1" "$2" "$(after "$plan" '"blobs":')"
	else
		fetch -q -T 30 -r -o "$2" "$1"
	fi
}

# sound FILE DIGEST
sound() {
	found=$(sha256 -q "$1") && [ "sha256:$found" = "$2" ] && return
	echo "the blob has the digest sha256:$found, and should have $2"
	return 1
}

# fits BYTES: a quarter of all memory is left to programs.
fits() {
	free=$(($(sysctl -n vm.stats.vm.v_free_count) * $(sysctl -n hw.pagesize)))
	spare=$(($(sysctl -n hw.physmem) / 4))
	[ "$1" -le $((free - spare)) ] && return
	echo "$1 bytes are needed, and of memory only $free are free, of which $spare are left to programs"
	return 1
}

# precache reads the bundle into memory. On a slow link it goes on when userland
# is up, so that no boot is later for it.
precache() {
	bundle=${plan#*\"bundle\":}
	if [ "$bundle" = "$plan" ]; then
		report precache skipped "the image has no bundle"
		return
	fi
	url=$(after "$bundle" '"url":') digest=$(after "$bundle" '"digest":') size=$(after "$bundle" '"size":')
	folders=${bundle#*\"folders\":\[}
	[ "$folders" != "$bundle" ] || folders=
	folders=${folders%%]*}
	report precache begin
	if ! said=$(fits "$size"); then
		report precache skipped "$said"
		return
	fi
	if ! { mkdir -p "$here/blob" "$here/bundle" && mount -t tmpfs -o rw,mode=0700 tmpfs "$here/blob"; } 2>"$here/why"; then
		report precache failed "no memory file system for the bundle"
		return
	fi
	get "$url" "$here/blob/bundle" >"$here/note" 2>"$here/why" &
	job=$!
	waited=0
	while kill -0 $job 2>/dev/null && [ $waited -lt $((patience * 5)) ]; do
		sleep 0.2
		waited=$((waited + 1))
	done
	if kill $job 2>/dev/null; then
		wait $job
		report precache skipped "the link is slow: going on in the background"
		(
			while ! [ -e "$here/up" ]; do sleep 1; done
			get "$url" "$here/blob/bundle" >"$here/note" 2>"$here/why"
			lay_bundle
		) &
		return
	fi
	wait $job
	lay_bundle
}

# lay_bundle verifies the bundle and puts its folders over the root's: by tarfs
# on the blob as it is, else unpacked.
lay_bundle() {
	if ! said=$(sound "$here/blob/bundle" "$digest"); then
		umount "$here/blob"
		read -r why <"$here/why" && said="$said ($why)"
		report precache failed "going on without the bundle: $said"
		return
	fi
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
	old=$IFS
	IFS='",'
	set -f
	for folder in $folders; do
		[ -n "$folder" ] || continue
		if [ -d "$here/bundle$folder" ] && mount -t nullfs -o ro "$here/bundle$folder" "$folder" 2>"$here/why"; then
			laid="$laid $folder"
		else
			state=failed
		fi
	done
	set +f
	IFS=$old
	echo precache >"$here/root"
	note=''
	[ ! -s "$here/note" ] || read -r note <"$here/note"
	report precache $state "$how:${laid:- no folder}${note:+; $note}"
}

# layer URL DIGEST lays one layer over the root in memory: whiteouts first, for
# they speak of the layers below.
layer() {
	rm -f "$here/blob/layer"
	get "$1" "$here/blob/layer" || return 1
	sound "$here/blob/layer" "$2" || return 1
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
	rest=${plan#*\"layers\":} need=0
	[ "$rest" != "$plan" ] || { echo "the plan names no layers"; return 1; }
	counted=$rest
	while bytes=$(after "$counted" '"uncompressed":'); do
		need=$((need + bytes))
		counted=${counted#*\"uncompressed\":}
	done
	fits "$need" || return 1
	mkdir -p "$here/blob" && mount -t tmpfs -o rw,mode=0700 tmpfs "$here/blob" && mount -t tmpfs -o rw,mode=0755 tmpfs "$place" || return 1
	while url=$(after "$rest" '"url":'); do
		# What follows is this layer's own: the digest next to its URL.
		rest=${rest#*\"url\":}
		layer "$url" "$(after "$rest" '"digest":')" || { umount "$here/blob"; umount "$place"; return 1; }
	done
	umount "$here/blob"
	for file in $secrets; do
		[ ! -e "$file" ] || { mkdir -p "$place${file%/*}" && cp -p "$file" "$place$file"; }
	done
	mkdir -p "$place/dev" "$place$here" && cp -p "$here/server" "$here/token" "$place$here/" 2>/dev/null
	echo ram >"$place$here/root"
	mount -t devfs devfs "$place/dev" && kenv "init_chroot=$place" >/dev/null
}

# export_of PATH OTHERWISE: what the plan says is mounted there.
export_of() {
	exports=${plan#*\"path\":\""$1"\",}
	if [ -z "$plan" ]; then
		echo "$2"
	elif [ "$exports" != "$plan" ]; then
		after "$exports" '"export":'
	fi
}

writable() {
	case $etc in
	volatile) [ -n "$top" ] || try "etc volatile" etc_volatile ;;
	persistent) try "etc persistent" nfs "$(export_of /etc "$server:/cow/$name/etc")" "$top/etc" || [ -n "$top" ] || try "etc volatile" etc_volatile ;;
	esac
	[ -z "$persist" ] || try "persist $persist" nfs "$(export_of "$persist" "$server:/persist/$name")" "$top$persist"
	[ -z "$shared" ] || try "shared $shared" nfs "$(export_of "$shared")" "$top$shared"
}

if [ -r "$conf" ]; then . "$conf"; else say "there is no $conf: nothing is laid over the root"; fi
server=$(kenv -q boot.nfsroot.server)
name=$(kenv -q boot.nfsroot.path)
name=${name##*/}
plan=''
memory
agent_start
ask_plan
if [ "$root" = ram ] && try root root_in_memory; then top=$place; fi
[ "$root" != precache ] || precache
writable
if [ -n "$agent" ]; then echo end >&3; fi
exec 3>&- 4>&-
# init goes on with rc only where its script ends well.
exit 0

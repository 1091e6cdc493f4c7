# build.sh SRCTOP OBJTOP KERNCONF KERNCONFDIR MODULES COMPILE REPRODUCIBLE
set -e
src=$1 top=$2 name=$3 confdir=$4 modules=$5 compile=$6 reproducible=$7
conf=$src/sys/amd64/conf
if [ ! -f "${confdir:-$conf}/$name" ]; then
	echo "Missing KERNCONF ${confdir:-$conf}/$name" >&2
	exit 1
fi
if [ ! -f "$top/tmp/bin/config" ]; then
	echo "config: not found; make kernel-toolchain first" >&2
	exit 127
fi
obj=$top/sys/$name
mkdir -p "$obj"
cd "$obj"
python3 "$top/tmp/bin/config" opt_global.h "$src/sys/conf" ${confdir:+"$confdir"} "$conf" "$name"
sh "$src/sys/conf/newvers.sh" ${reproducible:+-R} > vers.c
$compile -I. -o kernel "$src/sys/kern/main.c" vers.c
{
	echo "dir boot root wheel 0755"
	echo "dir boot/kernel root wheel 0755"
	echo "file kernel boot/kernel/kernel root wheel 0555"
} > install.list
for m in ${modules:-$(ls "$src/sys/modules")}; do
	echo "===> $m (all)"
	$compile -shared -fPIC -o "$m.ko" "$src/sys/modules/$m/$m.c"
	echo "file $m.ko boot/kernel/$m.ko root wheel 0555" >> install.list
done

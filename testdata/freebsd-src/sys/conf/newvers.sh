#!/bin/sh
# newvers.sh [-R]: prints the kernel's stamp; -R leaves out who built it, where
# and how often.
TYPE="FreeBSD"
REVISION="15.1"
BRANCH="RELEASE-p1"
stamp="$TYPE $REVISION-$BRANCH"
if [ "$1" != "-R" ]; then
	count=$(cat version 2>/dev/null || echo 0)
	echo $((count + 1)) > version
	stamp="$stamp #$count: $(date) $(whoami)@$(hostname):$(pwd)"
fi
echo "const char version[] = \"$stamp\";"

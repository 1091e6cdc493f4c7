# hook.sh SRCTOP TARGET: what a test wants to happen when a target begins.
hook="$1/hooks/$2.sh"
[ ! -f "$hook" ] || . "$hook"

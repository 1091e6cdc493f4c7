package freebsd

import (
	"regexp"
	"strings"
)

// remedies maps what builds print when they fail to what can be done. The
// first that matches counts.
var remedies = []struct {
	seen   *regexp.Regexp
	remedy string
}{
	{regexp.MustCompile(`No space left on device|not enough space|ENOSPC`),
		"the disk is full; free some room (a world needs about 10 GB of objects, a kernel 5) and build again, which goes on from here"},
	{regexp.MustCompile(`unknown option "([^"]+)"`),
		`config(8) knows no kernel option "$1"; the known ones are in the tree's sys/conf/options and sys/<arch>/conf/NOTES`},
	{regexp.MustCompile(`[Dd]evice "([^"]+)" is unknown`),
		`config(8) knows no device "$1"; the known ones are in the tree's sys/conf/NOTES and sys/<arch>/conf/NOTES`},
	{regexp.MustCompile(`Missing KERNCONF (\S+)|Missing kernel configuration`),
		`the tree has no such kernel configuration; name one that lies in sys/<arch>/conf, or give "include" for a new one`},
	{regexp.MustCompile(`fatal error: '(archive|bzlib|zlib|lzma|openssl/\w+)\.h' file not found`),
		"a header of the host is missing; on Debian: apt install libarchive-dev libbz2-dev zlib1g-dev liblzma-dev libssl-dev"},
	{regexp.MustCompile(`(?:sh: \d+: |: )(flex|bison|m4|python3|yacc|bc): (?:command )?not found`),
		`the host has no "$1"; on Debian: apt install flex bison m4 bc python3`},
	{regexp.MustCompile(`Could not infer value for \$(\w+)`),
		"the toolchain's folder lacks a program; let source.src.toolchain name LLVM's bin folder"},
	{regexp.MustCompile(`(?i)\bsignal 9\b|Killed|cannot allocate memory|out of memory`),
		"a process was killed, most likely for want of memory; use fewer --jobs (1.5 GB a job is enough)"},
	{regexp.MustCompile(`bmake-install|Failed tests:`),
		"building the tree's bmake failed; it needs a C compiler and a shell, and nothing else may build in the same source tree meanwhile"},
}

// explain finds a remedy in the last lines of a build, or returns "".
func explain(tail []string) string {
	text := strings.Join(tail, "\n")
	for _, r := range remedies {
		if m := r.seen.FindStringSubmatchIndex(text); m != nil {
			return string(r.seen.ExpandString(nil, r.remedy, text, m))
		}
	}
	return ""
}

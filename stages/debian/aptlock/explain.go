package aptlock

import (
	"fmt"
	"regexp"
	"strings"

	"rhizome/stages/debian/tool"
)

// meaning is one thing that apt says, and what it means to whoever wrote the
// recipe. The cause's %s is the pattern's first group.
type meaning struct {
	pattern *regexp.Regexp
	cause   tool.Cause
}

const otherMirror = "try again, or name another mirror with \"mirror:\""

// meanings are tried in order on each of apt's last lines; the first pattern
// that fits any line wins, so the more telling ones stand first.
func meanings() []meaning {
	m := func(pattern, what, remedy string, network bool) meaning {
		return meaning{regexp.MustCompile(pattern), tool.Cause{What: what, Remedy: remedy, Network: network}}
	}
	return []meaning{
		m(`No space left on device`, "the disk that holds the package cache is full%s", "free some space, or move the cache with XDG_CACHE_HOME", false),
		m(`Unable to locate package (\S+)`, "there is no package %q",
			"check its spelling, and whether its component (contrib, non-free-firmware) is in \"components:\"", false),
		m(`Package '?([^ ']+)'? has no installation candidate`, "the archive names the package %q but does not have it",
			"check its spelling, and whether it is in this suite", false),
		m(`Couldn't find any package by (?:glob|regex) '([^']+)'`, "there is no package %q", "check its spelling", false),
		m(`NO_PUBKEY ([0-9A-F]+)`, "the archive is signed with the key %s, which is not in the keyring",
			"name the archive's keyring with \"keyring:\"", false),
		m(`(?:is not signed|signatures? (?:were invalid|couldn't be verified)|no valid OpenPGP|unsupported filetype)()`,
			"the archive's signature does not fit the keyring%s", "name the archive's keyring with \"keyring:\"", false),
		m(`does not have a Release file()`, "the mirror has no such suite%s", "check \"suite:\" and \"mirror:\"", true),
		m(`Release file for (\S+) is (?:expired|not valid)`, "the index %s is too old", "is this machine's clock right? Name a mirror that is kept up", true),
		m(`(?:Temporary failure resolving|Could not resolve) '([^']+)'`, "the name of the mirror %q cannot be resolved", otherMirror, true),
		m(`(?:Could not connect to|Unable to connect to|Cannot initiate the connection to) (\S+)`, "the mirror %s does not answer", otherMirror, true),
		m(`Failed to fetch (\S+)\s`, "the mirror did not give %s", otherMirror, true),
		m(`The following packages have unmet dependencies()`, "the packages cannot be installed together%s", "leave one of them out", false),
		m(`Unable to correct problems()`, "the packages cannot be installed together%s", "leave one of them out", false),
	}
}

// explain reads apt's last lines.
func explain(tail []string) tool.Cause {
	for _, m := range meanings() {
		for _, line := range tail {
			if g := m.pattern.FindStringSubmatch(line); g != nil {
				return m.of(append(g, "")[1], tail)
			}
		}
	}
	return tool.Cause{}
}

func (m meaning) of(group string, tail []string) tool.Cause {
	c := m.cause
	c.What = fmt.Sprintf(c.What, group)
	if strings.Contains(c.What, "cannot be installed together") {
		c.What += unmet(tail)
	}
	return c
}

// unmet quotes apt's own list of what excludes what.
func unmet(tail []string) string {
	var said []string
	for _, line := range tail {
		if strings.Contains(line, "Depends:") || strings.Contains(line, "Conflicts:") || strings.Contains(line, "Breaks:") {
			said = append(said, strings.Join(strings.Fields(line), " "))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return " (" + strings.Join(said, "; ") + ")"
}

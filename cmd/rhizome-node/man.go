package main

import (
	"bytes"
	"flag"
	"fmt"
	"strings"
)

// manName is the command that packagers call to write the manual page.
const manName = "man"

// files are what the program reads and leaves on a node.
func files() [][2]string {
	return [][2]string{
		{"/run/rhizome", "what this boot knows (/var/run/rhizome on FreeBSD)"},
		{"/run/rhizome/token", "shows the server that a request comes from root on this node"},
		{"/run/rhizome/prefetch/REGION", "a region in memory, with REGION.json about whose it is"},
		{"/etc/rhizome/early.conf", "what the recipe wants of the node, as the early script reads it"},
	}
}

// man writes the manual page, man(7), out of the tables that the program itself
// goes by. It has no date: the same version writes the same page.
func (p *program) man() error {
	var m page
	m.line(`.TH "RHIZOME-NODE" "8" "" %s "rhizome"`, quoted("rhizome "+version))
	m.section("NAME", `rhizome-node \- work on a diskless node, and tell the server how it fares`)
	m.section("SYNOPSIS", `\fBrhizome-node\fP \fICOMMAND\fP ...`)
	m.section("DESCRIPTION", escaped("rhizome-node is the part of rhizome that lies in the roots of nodes with the stage \"early\". "+
		"It tells the server of steps and heartbeats, and takes parts of a writable export into memory for a job. "+
		"It is run as root: the token that it shows the server is for root alone."))
	m.line(".SH COMMANDS")
	for _, c := range commands() {
		m.entry(strings.TrimSpace(`\fB`+escaped(c.name)+`\fP `+escaped(c.args)), c.short+".")
	}
	for _, c := range commands() {
		if f := flagged()[c.name]; f != nil {
			m.flags(c.name, f)
		}
	}
	m.line(".SH EXIT STATUS")
	m.line("%s", escaped("prefetch and job leave with their command's own code where it ran, 128+N when signal N ended it. Else:"))
	for _, e := range exitMeanings() {
		m.entry(fmt.Sprint(e.code), e.means+".")
	}
	m.line(".SH ENVIRONMENT")
	m.entry(`\fBRHIZOME_RUN\fP`, "another folder in the place of /run/rhizome.")
	m.line(".SH FILES")
	for _, f := range files() {
		m.entry(`\fI`+escaped(f[0])+`\fP`, f[1]+".")
	}
	m.section("SEE ALSO", `\fBrhizome\fP(1)`)
	_, err := p.out.Write(m.Bytes())
	return err
}

// page is a manual page that grows.
type page struct{ bytes.Buffer }

func (m *page) line(format string, args ...any) { fmt.Fprintf(m, format+"\n", args...) }

func (m *page) section(name, text string) { m.line(".SH %s\n%s", name, text) }

// entry is a tag, made already, and what it means.
func (m *page) entry(tag, means string) { m.line(".TP\n%s\n%s", tag, escaped(means)) }

func (m *page) flags(command string, f *flag.FlagSet) {
	m.line(".SH OPTIONS OF %s", strings.ToUpper(command))
	f.VisitAll(func(o *flag.Flag) {
		kind, usage := flag.UnquoteUsage(o)
		tag := `\fB` + escaped("--"+o.Name) + `\fP`
		if kind != "" {
			tag += ` \fI` + escaped(kind) + `\fP`
		}
		if o.DefValue != "" && o.DefValue != "false" && o.DefValue != "0" && o.DefValue != "0s" {
			usage += " (default " + o.DefValue + ")"
		}
		m.entry(tag, usage+".")
	})
}

// escaped is text that troff takes as it is: a hyphen that can be searched for,
// and no control character at the beginning.
func escaped(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		return `\&` + s
	}
	return s
}

// quoted is an argument of a request.
func quoted(s string) string { return `"` + strings.ReplaceAll(escaped(s), `"`, `""`) + `"` }

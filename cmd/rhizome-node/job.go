package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/cmd/rhizome-node/internal/runner"
	"rhizome/serve/node/nodeapi"
)

// split separates what stands before "--" and the command behind it.
func split(args []string) (before, command []string, err error) {
	i := slices.Index(args, "--")
	if i < 0 || i == len(args)-1 {
		return nil, nil, usagef("write \"-- COMMAND\" at the end: what is to be run")
	}
	return args[:i], args[i+1:], nil
}

// job runs a command between the two ends of a window of learning. The
// command runs whatever the server says: that it learns is no reason not to.
func (p *program) job(ctx context.Context, args []string) error {
	names, argv, err := split(args)
	if err != nil {
		return err
	}
	if len(names) != 1 {
		return usagef("job takes one name and a command: rhizome-node job NAME -- COMMAND")
	}
	path, err := runner.Look(argv[0])
	if err != nil {
		return p.noCommand(err)
	}
	tell := func(j nodeapi.Job) {
		c, err := agent.Find(p.dir)
		if err == nil {
			err = c.Job(ctx, j)
		}
		if err != nil {
			p.note("the job %q is not learned from: %v", names[0], err)
		}
	}
	tell(nodeapi.Job{Name: names[0], State: nodeapi.Begin})
	code, err := runner.Run(runner.Command{Path: path, Args: argv, Stdin: os.Stdin, Stdout: p.out, Stderr: p.err})
	if err != nil {
		code = exitCannot
		p.note("%v", err)
	}
	tell(nodeapi.Job{Name: names[0], State: nodeapi.End, Exit: code})
	return code0(code)
}

func code0(code int) error {
	if code == 0 {
		return nil
	}
	return &codeError{nil, code}
}

func (p *program) noCommand(err error) error {
	if runner.Missing(err) {
		return &codeError{err, exitMissing}
	}
	return &codeError{err, exitCannot}
}

// report tells of a step, for scripts.
func (p *program) report(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return usagef("report takes a step, its state (begin, ok, failed, skipped) and a message")
	}
	c, err := agent.Find(p.dir)
	if err != nil {
		return &codeError{err, exitNetwork}
	}
	err = c.Report(ctx, nodeapi.Report{Step: args[0], State: args[1], Message: strings.Join(args[2:], " "), Uptime: agent.Uptime().Seconds()})
	if err != nil && agent.Status(err) == 400 {
		return &codeError{err, exitUsage}
	}
	if err != nil {
		return &codeError{err, exitNetwork}
	}
	return nil
}

// Command rhizome builds and serves the root file systems of diskless
// clusters. This file holds the way in and out: flags that every verb shares,
// signals, and the exit codes of the manual.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func main() {
	cobra.EnableCommandSorting = false // --help lists the verbs in the order of work
	ctx := untilSignal()
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.LookupEnv}))
}

// stopped is why a context ended by a signal.
type stopped struct{ by os.Signal }

func (s stopped) Error() string        { return "stopped by the signal " + s.by.String() }
func (s stopped) Is(target error) bool { return target == context.Canceled }

// untilSignal ends its context at the first Ctrl-C or SIGTERM. A second one ends
// the program where it stands.
func untilSignal() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		by := <-signals
		signal.Stop(signals)
		cancel(stopped{by})
	}()
	return ctx
}

// interrupted says whether somebody pressed Ctrl-C.
func interrupted(ctx context.Context) bool {
	var s stopped
	return errors.As(context.Cause(ctx), &s) && s.by == os.Interrupt
}

// run is the whole program for given arguments: main, and the CLI's tests,
// call it. It returns the exit code.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	out := &results{Writer: s.out, before: a.close}
	a.out = out
	root := a.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	a.close()
	if out.err != nil && (err == nil || errors.Is(err, errReported) || errors.Is(err, out.err)) {
		err = fmt.Errorf("writing the results: %w", out.err)
	}
	return a.exit(ctx, err)
}

// app is what the verbs share.
type app struct {
	streams

	storeDir string
	json     bool
	progress string
	quiet    bool
	verbose  bool

	term *terminal
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "rhizome",
		Short: "Build and serve the root file systems of diskless clusters",
		Long: `rhizome builds the root file systems of diskless clusters from recipes, as
OCI images, and boots the cluster from a pinned digest: DHCP, TFTP, HTTP and
NFS in one process.

Exit codes: 0 done; 1 failed; 2 usage, or an invalid recipe; 3 not found;
4 the network or a registry; 5 locked or in conflict; 6 a check found
something; 130 interrupted.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: a.prepare,
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	f := root.PersistentFlags()
	f.StringVar(&a.storeDir, "store", "", "the store's folder (default: $RHIZOME_STORE, else the system's or the user's state directory)")
	_ = root.MarkPersistentFlagDirname("store")
	f.StringVar(&a.progress, "progress", "auto", "how to show progress: auto, plain, json or none")
	_ = root.RegisterFlagCompletionFunc("progress", oneOf("auto", "plain", "json", "none"))
	f.BoolVarP(&a.quiet, "quiet", "q", false, "say only what went wrong")
	f.BoolVarP(&a.verbose, "verbose", "v", false, "say more: the tools' output and debug messages")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	root.AddCommand(a.verbs()...)
	root.Version = version
	root.SetVersionTemplate("rhizome {{.Version}}\n")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	strictGroup(root) // cobra finds a verb that is not there by itself, but for an empty one
	for _, cmd := range root.Commands() {
		strictGroup(cmd)
	}
	return root
}

// oneOf completes a flag that takes one of these words. That the flag is there is
// for its own line to say.
func oneOf(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// strictGroup refuses an argument that is no verb of a group; cobra would print
// the help of the group, or of the whole program, and exit with 0.
func strictGroup(cmd *cobra.Command) {
	switch {
	case cmd.Name() == "help":
		cmd.Run, cmd.RunE = nil, func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no verb %q; rhizome --help lists them", strings.Join(args, " "))
			}
			return about.Help()
		}
	case cmd.HasSubCommands() && !cmd.Runnable():
		cmd.Args, cmd.RunE = nil, func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%s has no verb %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
}

func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if name := emptyFlag(cmd.Flags()); name != "" {
		return usagef("--%s is empty; give it a value, or leave it out", name)
	}
	t, err := newTerminal(a.streams, a.progress, a.quiet, a.verbose)
	if err != nil {
		return &usageError{err}
	}
	a.term = t
	return nil
}

// emptyFlag finds a flag that was given nothing, most likely by a variable of a
// script that is not set: what it would have limited must not become everything.
func emptyFlag(flags *pflag.FlagSet) (name string) {
	flags.Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "string" && f.Value.String() == "" {
			name = f.Name
		}
	})
	return name
}

// flagError says what is wrong with a flag's value in words, not as the package
// that read it.
func flagError(err error) error {
	text, _, number := strings.Cut(err.Error(), ": strconv.")
	text, _, duration := strings.Cut(text, ": time: ")
	switch {
	case number:
		return usagef("%s; give it a whole number", text)
	case duration:
		return usagef("%s; give it a time such as 90s, 30m or 24h", text)
	}
	return &usageError{err}
}

// jsonFlag gives a verb that reads its --json.
func (a *app) jsonFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON instead of text")
	return cmd
}

func (a *app) close() {
	if a.term != nil {
		a.term.close()
	}
}

// exact wants a number of arguments and says so in the program's own words.
func exact(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return usagef("%s takes %s; see %s --help", cmd.Name(), what, cmd.CommandPath())
	}
}

// withImages wants arguments at these places to be references into the store:
// what can mean nothing is a wrong call, whatever the store holds.
func withImages(args cobra.PositionalArgs, at ...int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return err
		}
		for _, i := range at {
			if _, err := storeRef(given[i]); err != nil {
				return err
			}
		}
		return nil
	}
}

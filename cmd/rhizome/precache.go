package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"rhizome/cmd/rhizome/internal/plot"
	"rhizome/recipes"
	"rhizome/registry/imagefmt"
	"rhizome/serve"
	"rhizome/serve/reads"
	"rhizome/serve/rootfs"
	"rhizome/stages/precache"

	"github.com/spf13/cobra"
)

func (a *app) precacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "precache",
		Short: "Find out what nodes should hold in memory",
	}
	cmd.AddCommand(a.learnCommand())
	return cmd
}

// learnOptions are the flags of "precache learn".
type learnOptions struct {
	during      []string
	limit       string
	svg, output string
	boots       int
}

func (a *app) learnCommand() *cobra.Command {
	var o learnOptions
	cmd := &cobra.Command{
		Use:   "learn CLUSTER",
		Short: "Make the hot list from what nodes were seen to read",
		Long: `Make the hot list from what the nodes of a cluster read while they booted, or
during a job that they named (rhizome-node job NAME), and print the fragment of
a recipe that holds it in memory. What the list spares stands on stderr.

A node that holds a bundle already does not ask for what is in it: learn from
boots of nodes whose root mode is nfs.`,
		Args: exact(1, "one cluster or image"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.learn(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.during, "during", []string{reads.BootWindow}, "the job to learn from instead of the boot; again for more, and \"boot\" is the boot")
	f.StringVar(&o.limit, "limit", "", "the most that the bundle may take of a node's memory (default: as much as is worth it)")
	f.StringVar(&o.svg, "svg", "", "draw what the list spares into this file")
	f.StringVarP(&o.output, "output", "o", "", "write the list into this file, for \"learned\"; without it the paths stand in the fragment")
	f.IntVar(&o.boots, "boots", 3, "learn from so many boots of each node, the newest")
	takesFile(cmd, "svg", "output")
	return a.places(a.jsonFlag(cmd), either(offerClusters, offerImages))
}

func (a *app) learn(ctx context.Context, name string, o learnOptions) error {
	limit, err := sizeFlag("--limit", o.limit)
	if err != nil {
		return err
	}
	if o.boots < 1 {
		return usagef("--boots is at least 1, not %d", o.boots)
	}
	return a.withAnyMachine(ctx, name, func(e exported) error {
		windows, err := seen(e, o)
		if err != nil {
			return err
		}
		list, err := reads.Learn(e.machine.View, windows, wishFor(e.machine, limit))
		if err != nil {
			return err
		}
		return a.printLearned(e.machine, list, o)
	})
}

func sizeFlag(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := recipes.ParseSize(text)
	if err != nil {
		return 0, usagef("%s: %w", name, err)
	}
	return n, nil
}

// withAnyMachine opens the first node of what a cluster boots, or of an image.
func (a *app) withAnyMachine(ctx context.Context, name string, use func(exported) error) error {
	s, err := a.openStore()
	if err != nil {
		return err
	}
	index, err := resolve(ctx, s, name)
	if pins, bad := s.Pins(name); bad == nil {
		index, err = s.Images().Describe(ctx, pins.Boot)
	}
	if err != nil {
		return err
	}
	nodes, err := s.Nodes(ctx, index)
	if err != nil {
		return err
	}
	if len(nodes) == 0 {
		return &codeError{fmt.Errorf("%q has no node", name), exitNotFound}
	}
	loader := &serve.Loader{Source: storeSource{s}, Cache: rootfs.NewCache(readCache)}
	defer loader.Close()
	m, err := loader.Machine(ctx, nodes[0].Descriptor)
	if err != nil {
		return fmt.Errorf("opening the root of node %q: %w", nodes[0].Node, err)
	}
	return use(exported{store: s, manifest: nodes[0].Descriptor, machine: m})
}

// seen are the windows to learn from.
func seen(e exported, o learnOptions) ([]reads.Window, error) {
	cluster := e.machine.Cluster.Name
	shelf, err := readShelf(e.store, cluster)
	if err != nil {
		return nil, err
	}
	records, err := shelf.Load()
	if err != nil {
		return nil, err
	}
	picked := reads.Pick(records, o.during, o.boots)
	if len(picked.Windows) > 0 {
		return picked.Windows, nil
	}
	what := strings.Join(o.during, " or ")
	switch {
	case picked.Bundled > 0:
		err = fmt.Errorf("all %d records of %q in the cluster %q are of nodes that held a bundle, and what is in it they did not ask for: boot a node once with \"root: nfs\", and learn from that", picked.Bundled, what, cluster)
	case len(picked.Names) > 0:
		err = fmt.Errorf("nothing is known of %q in the cluster %q; the nodes did: %s", what, cluster, strings.Join(picked.Names, ", "))
	default:
		err = fmt.Errorf("no node of the cluster %q was seen to read anything: boot one from \"rhizome serve\" first, whose root mode is nfs", cluster)
	}
	return nil, &codeError{err, exitNotFound}
}

// maxFolders is how many folders a FreeBSD node mounts out of its bundle.
const maxFolders = 16

// wishFor is what can be held of a machine's root.
func wishFor(m *serve.Machine, limit int64) reads.Wish {
	return reads.Wish{
		Limit: limit, Cost: precache.Cost, Folders: m.Node.Boot.OS == "freebsd", MaxFolders: maxFolders,
		Apart: func(p string, f rootfs.File) bool {
			n := int(f.Layer)
			return mountedOver(m.Node.Boot.OS, p) || n >= len(m.Layers) || m.Layers[n].Annotations[imagefmt.AnnotationRole] == "node"
		},
		Before: fetchesTheBundle,
	}
}

// fetchesTheBundle tells the early stage's programs. The kernel keeps what it read
// of them: "rhizome-node up" and "heartbeat" ask the server for nothing more.
func fetchesTheBundle(p string) bool {
	return p == "/usr/sbin/rhizome-early" || p == "/usr/sbin/rhizome-node"
}

// mountedOver says whether a node has something else at a path, or, of /boot,
// whether its loader reads it before there is a bundle. On Linux the early script
// fills /var in memory from what the bundle has of it, but for what it leaves the
// image's.
func mountedOver(system, p string) bool {
	top, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	if top == "var" && system == "linux" {
		return slices.ContainsFunc([]string{"/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/tmp"},
			func(own string) bool { return p == own || strings.HasPrefix(p, own+"/") })
	}
	return slices.Contains([]string{"boot", "dev", "proc", "run", "sys", "tmp", "var"}, top)
}

func (a *app) printLearned(m *serve.Machine, l *reads.List, o learnOptions) error {
	if err := a.writeLearned(m, l, o); err != nil {
		return err
	}
	if a.json {
		return encodeJSON(a.out, l)
	}
	if err := a.printCoverage(m, l); err != nil {
		return err
	}
	_, err := io.WriteString(a.out, fragment(l, o.output))
	return err
}

// writeLearned writes the files that were asked for.
func (a *app) writeLearned(m *serve.Machine, l *reads.List, o learnOptions) error {
	if o.output != "" {
		if err := os.WriteFile(o.output, []byte(hotList(m, l)), 0o644); err != nil {
			return fmt.Errorf("writing the list: %w", err)
		}
	}
	if o.svg != "" {
		if err := os.WriteFile(o.svg, coveragePlot(m, l).SVG(), 0o644); err != nil {
			return fmt.Errorf("writing the plot: %w", err)
		}
	}
	return nil
}

// hotList is the file that a recipe's "precache: learned" names.
func hotList(m *serve.Machine, l *reads.List) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What nodes of %s should hold in memory, what boots read first, learned from %s.\n", m.Cluster.Name, boots(l.Windows))
	for _, s := range l.Steps {
		if !strings.ContainsAny(s.Path, "\r\n") {
			b.WriteString(s.Path + "\n")
		}
	}
	return b.String()
}

// fragment is what goes into a recipe.
func fragment(l *reads.List, file string) string {
	first := ""
	if l.First > 0 {
		first = fmt.Sprintf("%dM", (l.First+1<<20-1)>>20)
	}
	if file != "" {
		if first != "" {
			first = ", first: " + first
		}
		return fmt.Sprintf("precache: {learned: %s%s}\n", strconv.Quote(filepath.Base(file)), first)
	}
	if len(l.Steps) == 0 {
		return "precache: {paths: []}\n"
	}
	var b strings.Builder
	b.WriteString("precache:\n")
	if first != "" {
		fmt.Fprintf(&b, "  first: %s\n", first)
	}
	b.WriteString("  paths:\n")
	for _, s := range l.Steps {
		fmt.Fprintf(&b, "    - %s\n", strconv.Quote(s.Path))
	}
	return b.String()
}

// printCoverage says what the list spares, at a dozen sizes.
func (a *app) printCoverage(m *serve.Machine, l *reads.List) error {
	n := uint64(max(l.Windows, 1))
	fmt.Fprintf(a.err, "%s; each asked %d times, for %s\n", boots(l.Windows), l.Total.All()/n, megabytes(int64(l.Total.Bytes/n)))
	if len(l.Steps) == 0 {
		fmt.Fprintln(a.err, "nothing is worth its memory")
		return nil
	}
	err := table(a.err, "MEMORY\tPATHS\tCALLS SPARED\tBYTES SPARED\tCALLS PER MB", func(w io.Writer) {
		for _, i := range rows(l.Steps) {
			s := l.Steps[i]
			fmt.Fprintf(w, "%s\t%d\t%.1f%%\t%.1f%%\t%.0f\n", megabytes(s.Memory), i+1, percent(s.Calls, l.Total.All()), percent(s.Bytes, l.Total.Bytes),
				float64(s.Calls/n)/(float64(s.Memory)/(1<<20)))
		}
	})
	last := l.Steps[len(l.Steps)-1]
	usr := treeSize(m.View, "/usr")
	fmt.Fprintf(a.err, "the list takes %s, %.0f%% of /usr's %s, and spares %.0f%% of the calls and %.0f%% of the bytes\n",
		megabytes(last.Memory), percent(uint64(last.Memory), uint64(usr)), megabytes(usr), percent(last.Calls, l.Total.All()), percent(last.Bytes, l.Total.Bytes))
	if err == nil && l.First > 0 {
		_, err = fmt.Fprintf(a.err, "boots read most of the first %s: they wait for that much on any link\n", megabytes(l.First))
	}
	return err
}

// rows are about a dozen steps of a list: those at which its memory has grown by
// a twelfth, and the last.
func rows(steps []reads.Step) []int {
	var out []int
	total := steps[len(steps)-1].Memory
	next := total / 12
	for i, s := range steps {
		if s.Memory >= next || i == len(steps)-1 {
			out = append(out, i)
			next = s.Memory + total/12
		}
	}
	return out
}

// boots counts what was learned from.
func boots(n int) string {
	if n == 1 {
		return "1 boot or job"
	}
	return fmt.Sprintf("%d boots or jobs", n)
}

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }

// treeSize sums the sizes of the files below a path.
func treeSize(v *rootfs.View, p string) int64 {
	total := int64(0)
	// A root without that path has nothing there.
	_ = v.Walk(p, func(_ string, _ rootfs.File, a rootfs.Attr) error {
		if a.Kind == rootfs.Regular {
			total += int64(a.Size)
		}
		return nil
	})
	return total
}

// coveragePlot draws what a node's memory spares.
func coveragePlot(m *serve.Machine, l *reads.List) plot.Plot {
	calls := plot.Line{Name: "NFS calls", Colour: "#1f5a96", Points: []plot.Point{{}}}
	bytes := plot.Line{Name: "bytes read", Colour: "#b4531f", Points: []plot.Point{{}}}
	for _, s := range l.Steps {
		x := float64(s.Memory) / (1 << 20)
		calls.Points = append(calls.Points, plot.Point{X: x, Y: percent(s.Calls, l.Total.All())})
		bytes.Points = append(bytes.Points, plot.Point{X: x, Y: percent(s.Bytes, l.Total.Bytes)})
	}
	return plot.Plot{
		Title: fmt.Sprintf("What the hot list of %s spares (%s)", m.Cluster.Name, boots(l.Windows)),
		X:     "MB of a node's memory", Y: "percent that nodes need not ask for", MaxY: 100,
		Lines: []plot.Line{calls, bytes},
	}
}

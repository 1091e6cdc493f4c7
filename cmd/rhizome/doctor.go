package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"rhizome/cmd/rhizome/internal/doctor"
	"rhizome/recipes"
	"rhizome/registry/store"

	"github.com/spf13/cobra"
)

// doctorOptions are doctor's flags.
type doctorOptions struct {
	iface      string
	dhcp       string
	frameCache string
	purpose    string
	probe      bool
}

func (a *app) doctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [RECIPE|CLUSTER|REF]",
		Short: "Check the host, the image and the network before a node is switched on",
		Long: `Check the host, the image and the network before a node is switched on, and
print what is wrong, with what to do about it. Nothing is changed, and nothing
is sent to the network but with --probe.

Without an argument the host is checked alone; a recipe is checked by lint, and
the host for building it; a cluster or image node by node. The exit code is 6 if
anything was found, and 2 if the recipe is invalid: nothing else is looked at then.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("doctor takes one recipe, cluster or image, or none; see rhizome doctor --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.doctor(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.iface, "interface", "i", "", "the interface that serve is to answer on (default: the one that has the server's address)")
	f.StringVar(&o.dhcp, "dhcp", "server", "how serve is to answer DHCP: server, proxy or off")
	f.StringVar(&o.frameCache, "frame-cache", "", "the memory that serve is to take for decoded pieces of layers")
	f.StringVar(&o.purpose, "for", "both", "what this machine does: build, serve or both")
	_ = cmd.RegisterFlagCompletionFunc("dhcp", oneOf("server", "proxy", "off"))
	_ = cmd.RegisterFlagCompletionFunc("for", oneOf("build", "serve", "both"))
	f.BoolVar(&o.probe, "probe", false, "ask on the wire for other DHCP servers and for machines that have these addresses (some five seconds)")
	a.flagOffers(cmd, "interface", offerInterfaces)
	return a.recipeArgs(a.jsonFlag(cmd), 1, offerClusters, offerImages)
}

func (o doctorOptions) check() error {
	switch {
	case !slices.Contains([]string{"server", "proxy", "off"}, o.dhcp):
		return usagef("--dhcp is server, proxy or off, not %q", o.dhcp)
	case !slices.Contains([]string{"build", "serve", "both"}, o.purpose):
		return usagef("--for is build, serve or both, not %q", o.purpose)
	case o.purpose == "build" && (o.probe || o.iface != ""):
		return usagef("--probe and --interface are about serving; leave out --for build")
	}
	return nil
}

func (o doctorOptions) serves() bool { return o.purpose != "build" }

// patient is what doctor looks at.
type patient struct {
	*app
	doctorOptions
	now time.Time
	// store, in the folder dir, is nil where there is none, or none that can be
	// read; unread is why.
	store  *store.Store
	dir    string
	unread error
	// subject is the recipe, cluster or image that is asked about, or none of
	// them.
	subject
	found []doctor.Finding
}

func (p *patient) add(all []doctor.Finding) { p.found = append(p.found, all...) }

func (a *app) doctor(ctx context.Context, args []string, o doctorOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	cache, err := frameCacheSize(o.frameCache)
	if err != nil {
		return err
	}
	p := &patient{app: a, doctorOptions: o, now: time.Now()}
	if p.dir, err = a.storeFolder(); err != nil {
		return err
	}
	p.store, p.unread = store.OpenReadOnly(p.dir, store.Options{Log: a.term.logger()})
	if len(args) > 0 {
		if err := p.find(ctx, args[0]); err != nil {
			return err
		}
	}
	if p.lint.Errors() == 0 {
		p.checkImage(ctx)
		p.checkHost(ctx, cache)
		p.checkNetwork(ctx)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.print()
}

// find makes out what a name means: a file of YAML is a recipe; else a cluster
// or an image of the store, and at last a recipe by its name or another file.
func (p *patient) find(ctx context.Context, name string) error {
	p.name = name
	if ext := filepath.Ext(name); ext == ".yaml" || ext == ".yml" {
		return p.findRecipe(name)
	}
	err := p.findImage(ctx, name)
	switch {
	case err == nil && p.pins != nil:
		p.term.note("doctor   %s is a cluster of the store", name)
		return nil
	case err == nil:
		p.term.note("doctor   %s is the image %s of the store", name, p.index.Digest)
		return nil
	case !isNotFound(err) && !isMisspelt(err):
		return err
	}
	if slices.Contains(recipes.Shipped(), name) {
		p.term.note("doctor   %s is a recipe that rhizome brings", name)
		return p.findRecipe(name)
	}
	if _, err := os.Stat(name); err == nil { // a recipe without the ending, or a folder: lint's to say
		return p.findRecipe(name)
	}
	return &codeError{fmt.Errorf("%q is no recipe (a file NAME.yaml, or a shipped one), and neither a cluster nor an image of the store %q; --store or RHIZOME_STORE names another", name, p.dir), exitNotFound}
}

// findRecipe reads a recipe; what lint says of it comes first.
func (p *patient) findRecipe(name string) (err error) {
	if p.recipe, p.lint, err = recipes.Load(name); err != nil {
		return err
	}
	p.add(doctor.Recipe(p.lint))
	if p.lint.Errors() == 0 {
		p.takeRecipe(p.recipe)
	}
	return nil
}

func (p *patient) findImage(ctx context.Context, name string) error {
	if p.store == nil {
		return p.unread
	}
	pins, err := p.store.Pins(name)
	if err == nil {
		p.pins = &pins
		return nil
	}
	var notHere error
	p.index, notHere = resolve(ctx, p.store, name)
	if clusters, bad := p.store.Clusters(); notHere != nil && bad == nil && slices.Contains(clusters, name) {
		return err // its pins cannot be read
	}
	return notHere
}

func (p *patient) print() error {
	all := doctor.Merge(p.found)
	if p.json {
		if err := encodeJSON(p.out, all); err != nil {
			return err
		}
	} else if err := doctor.Write(p.out, all); err != nil {
		return err
	}
	errs, warnings := doctor.Count(all)
	if len(all) == 0 {
		p.term.note("doctor   nothing found")
		return nil
	}
	p.term.note("doctor   %d error(s), %d warning(s)", errs, warnings)
	if p.lint.Errors() > 0 {
		return reported(exitUsage)
	}
	return reported(exitFound)
}

package main

import (
	"context"
	"errors"
	"fmt"

	"rhizome/registry/store"

	"github.com/spf13/cobra"
)

func (a *app) untagCommand() *cobra.Command {
	return a.places(&cobra.Command{
		Use:   "untag REF",
		Short: "Drop a name; the image stays until gc finds that nothing needs it",
		Args:  withImages(exact(1, "one NAME:TAG"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openToChange()
			if err != nil {
				return err
			}
			return s.Untag(cmd.Context(), args[0])
		},
	}, offerImages)
}

func (a *app) verifyCommand() *cobra.Command {
	var flags registryFlags
	var repair bool
	cmd := &cobra.Command{
		Use:   "verify REF",
		Short: "Read every byte of an image against its digest",
		Long: `Read every byte of an image, and of seekable copies of its layers, against
their digests. What is wrong is printed, and the exit code is 6. With --repair
it is fetched again from the registries that images of this store came from.`,
		Args: withImages(exact(1, "one image"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.verify(cmd.Context(), args[0], repair, flags)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&repair, "repair", false, "fetch what is damaged or missing again")
	return a.places(a.jsonFlag(cmd), offerImages)
}

func (a *app) verify(ctx context.Context, image string, repair bool, flags registryFlags) error {
	open := a.openStore
	if repair {
		open = a.openToChange
	}
	s, err := open()
	if err != nil {
		return err
	}
	d, err := resolve(ctx, s, image)
	if err != nil {
		return err
	}
	found, err := s.Verify(ctx, d, func(done int64) { a.term.changing("verified " + bytesText(done)) })
	if err != nil {
		return err
	}
	if repair && len(found) > 0 {
		link, err := a.link(flags, s)
		if err != nil {
			return err
		}
		if found, err = s.Repair(ctx, found, link.Fetch); err != nil {
			return err
		}
	}
	return a.printVerified(found)
}

func (a *app) printVerified(found []store.Finding) error {
	if a.json {
		if found == nil {
			found = []store.Finding{}
		}
		if err := encodeJSON(a.out, found); err != nil {
			return err
		}
	} else {
		for _, f := range found {
			fmt.Fprintln(a.out, f.Text)
		}
	}
	if len(found) > 0 {
		return reported(exitFound)
	}
	a.term.note("every byte is what its digest says")
	return nil
}

func (a *app) gcCommand() *cobra.Command {
	var o store.GCOptions
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no name, pin, running build or mounted node needs",
		Long: `Remove from the store what nothing needs. A name needs its image, and so do a
cluster's pins and its last two switches, a node that has the image mounted, a
node's changes that lie over it (rhizome changes), a build or server that runs,
and a build step in the cache. What is younger than the grace period stays.`,
		Args: exact(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Keep < 0 || o.Grace < 0 {
				return &usageError{errors.New("--keep and --grace cannot be negative")}
			}
			if cmd.Flags().Changed("grace") && o.Grace == 0 {
				o.Grace = -1
			}
			s, err := a.openListed()
			if err != nil {
				return err
			}
			o.Needs = func() ([]store.Need, error) { return changedImages(s) }
			report, err := s.GC(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.printGC(report)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.DryRun, "dry-run", false, "say what would be removed")
	f.IntVar(&o.Keep, "keep", 0, "keep this many tags of each name, the newest, beside what is pinned (0: all)")
	f.DurationVar(&o.Grace, "grace", store.DefaultGrace, "keep what is younger than this")
	f.DurationVar(&o.CacheAge, "cache-age", store.DefaultCacheAge, "forget results of build steps that were not used for so long")
	return a.jsonFlag(cmd)
}

func (a *app) printGC(r store.GCReport) error {
	if a.json {
		return encodeJSON(a.out, r)
	}
	did := "removed"
	if r.DryRun {
		did = "would remove"
	}
	for _, t := range r.Untagged {
		fmt.Fprintf(a.out, "%s the name %s\n", did, t)
	}
	for _, b := range r.Blobs {
		fmt.Fprintf(a.out, "%s %s\n", did, b)
	}
	for _, d := range r.Derived {
		fmt.Fprintf(a.out, "%s the seekable copy of %s\n", did, d)
	}
	_, err := fmt.Fprintf(a.out, "%s %s; %s stay; %d younger than the grace period\n", did, bytesText(r.Bytes), bytesText(r.KeptBytes), r.Young)
	return err
}

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"rhizome/registry"
	"rhizome/registry/ref"
	"rhizome/registry/remote"
	"rhizome/registry/store"

	"github.com/spf13/cobra"
)

// registryFlags are those of every verb that talks to a registry.
type registryFlags struct {
	plainHTTP bool
	caFile    string
}

func (f *registryFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.plainHTTP, "plain-http", false, "speak HTTP without TLS to the registry")
	cmd.Flags().StringVar(&f.caFile, "ca-file", "", "certificate authorities to trust beside the system's (PEM)")
	takesFile(cmd, "ca-file")
}

// link joins the store and the registries, with docker's and podman's
// credentials.
func (a *app) link(f registryFlags, s *store.Store) (registry.Link, error) {
	// Without a home there are no files of credentials to read in it.
	home, _ := os.UserHomeDir() //nolint:errcheck // see above
	client, err := remote.New(remote.Options{
		PlainHTTP:   f.plainHTTP,
		CAFile:      f.caFile,
		Credentials: remote.FileCredentials(remote.CredentialFiles(a.getenv, home)...),
		Progress:    a.term.transfer,
		Log:         a.term.logger(),
		MountFrom:   s.MountFrom,
	})
	return registry.Link{Store: s, Client: client, PlainHTTP: f.plainHTTP}, err
}

// farRef reads a reference that must name a registry.
func farRef(text string) (ref.Reference, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return r, &usageError{err}
	}
	if !r.Remote() {
		return r, usagef("%q names no registry; write HOST/NAME:TAG", text)
	}
	return r, nil
}

func (a *app) pushCommand() *cobra.Command {
	var o pushOptions
	cmd := &cobra.Command{
		Use:   "push REF DEST",
		Short: "Send an image from the store to a registry",
		Long: `Send an image from the store to a registry. What the tag came to mean is
remembered there by a dated tag, TAG-20261101T120000Z, which "rhizome history
DEST" reads; the same image pushed again gets no second one.`,
		Args: withImages(exact(2, "an image of the store and where to push it"), 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.push(cmd.Context(), args[0], args[1], o)
		},
	}
	o.add(cmd)
	cmd.Flags().StringArrayVar(&o.more, "also-tag", nil, "a further tag of the same image in the registry")
	cmd.Flags().BoolVar(&o.noHistory, "no-history", false, "leave no dated tag in the registry")
	return a.places(cmd, offerImages)
}

type pushOptions struct {
	registryFlags
	more      []string
	noHistory bool
}

func (a *app) push(ctx context.Context, from, to string, o pushOptions) error {
	dest, err := farRef(to)
	if err != nil {
		return err
	}
	s, err := a.openToChange()
	if err != nil {
		return err
	}
	image, err := resolve(ctx, s, from)
	if err != nil {
		return err
	}
	link, err := a.link(o.registryFlags, s)
	if err != nil {
		return err
	}
	if o.noHistory {
		err = link.Push(ctx, image, dest, o.more...)
	} else {
		err = link.PushDated(ctx, image, dest, time.Now(), o.more...)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, image.Digest)
	return err
}

func (a *app) pullCommand() *cobra.Command {
	var flags registryFlags
	var tag string
	cmd := &cobra.Command{
		Use:   "pull SOURCE",
		Short: "Bring an image from a registry into the store",
		Args:  exact(1, "one image of a registry"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pull(cmd.Context(), args[0], tag, flags)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVarP(&tag, "tag", "t", "", "its name in the store (default: NAME:TAG of the source)")
	a.flagOffers(cmd, "tag", offerImages)
	return cmd
}

func (a *app) pull(ctx context.Context, from, tag string, flags registryFlags) error {
	source, err := farRef(from)
	if err != nil {
		return err
	}
	if tag == "" {
		tag = source.Tagged()
	}
	if err := store.CheckTag(tag); err != nil {
		return usagef("--tag: %w", err)
	}
	s, err := a.makeStore()
	if err != nil {
		return err
	}
	lease, err := s.Lease(ctx, "pull of "+from)
	if err != nil {
		return err
	}
	defer lease.Close()
	link, err := a.link(flags, s)
	if err != nil {
		return err
	}
	image, err := link.Pull(ctx, source, registry.PullOptions{Tag: tag})
	if err != nil {
		return err
	}
	a.term.note("tagged   %s", tag)
	_, err = fmt.Fprintln(a.out, image.Digest)
	return err
}

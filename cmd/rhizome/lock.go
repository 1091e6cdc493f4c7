package main

import (
	"context"
	"fmt"

	"rhizome/recipes"
	"rhizome/stages"

	"github.com/spf13/cobra"
)

func (a *app) lockCommand() *cobra.Command {
	flags := buildFlags{jobs: 1, locking: true, looking: true}
	cmd := &cobra.Command{
		Use:   "lock RECIPE",
		Short: "Pin packages and sources to versions and digests in the recipe's lock file",
		Long: `Resolve what the recipe names loosely (packages, git revisions) to exact
versions and digests, and write them to the lock file beside the recipe. build
obeys it, so that another day gives the same digest. The lock file's name is the
last line.`,
		Args: exact(1, "one recipe"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.lock(cmd.Context(), args[0], flags)
		},
	}
	flags.add(cmd)
	return a.recipeArgs(cmd, 1)
}

func (a *app) lock(ctx context.Context, name string, flags buildFlags) error {
	b, err := a.builder(ctx, name, flags)
	if err != nil {
		return err
	}
	lock, err := stages.Lock(ctx, b.stages, b.env)
	if err != nil {
		return err
	}
	file := b.recipe.LockFile()
	if err := recipes.WriteLock(file, lock); err != nil {
		return err
	}
	packages := 0
	for _, set := range lock.Sets {
		packages += len(set.Packages)
	}
	a.term.note("locked %d packages in %d sets, %d images, %d commits", packages, len(lock.Sets), len(lock.Images), len(lock.Commits))
	_, err = fmt.Fprintln(a.out, file)
	return err
}

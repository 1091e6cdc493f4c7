package main

import (
	"context"

	"rhizome/cmd/rhizome-node/internal/early"
)

// early, up and heartbeat are run by the early script and by the unit that
// comes with it, not by people.
func (p *program) early(ctx context.Context, args []string) error {
	return code0(early.Main(ctx, append([]string{"early"}, args...), p.out, p.err))
}

func (p *program) up(ctx context.Context, args []string) error {
	return code0(early.Main(ctx, append([]string{"up"}, args...), p.out, p.err))
}

func (p *program) heartbeat(ctx context.Context, args []string) error {
	return code0(early.Main(ctx, append([]string{"heartbeat"}, args...), p.out, p.err))
}

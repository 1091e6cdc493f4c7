package early

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"rhizome/cmd/rhizome-node/internal/agent"
	"rhizome/serve/node/nodeapi"
)

// upFile is made in the run folder when userland is up.
const upFile = "up"

// upTries is how often "up" asks, for about five minutes.
const upTries = 12

// tellUp says that userland is up. A node whose early script could not get a
// token gets one now.
func tellUp(ctx context.Context, console io.Writer) error {
	dir := agent.RunDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, upFile), nil, 0o644); err != nil {
		return fmt.Errorf("noting that userland is up: %w", err)
	}
	var err error
	for try := range upTries {
		if _, err = upOnce(ctx, dir); err == nil || !agent.IsNetwork(err) {
			return err
		}
		if try == 0 {
			fmt.Fprintf(console, "rhizome-node up: trying again: %v\n", err)
		}
		if err := sleep(ctx, min(time.Second<<try, 30*time.Second)); err != nil {
			return err
		}
	}
	return err
}

func upOnce(ctx context.Context, dir string) (next time.Duration, err error) {
	c, err := agent.Find(dir)
	if err != nil {
		return nodeapi.DefaultHeartbeat, err
	}
	if c.Token == "" {
		boot, err := c.Boot(ctx)
		if err != nil {
			return nodeapi.DefaultHeartbeat, err
		}
		c.Token = boot.Token
		if err := agent.Save(dir, c.Server, c.Token); err != nil {
			return nodeapi.DefaultHeartbeat, err
		}
	}
	return c.Up(ctx, state(dir))
}

// heartbeat tells that the node lives, until it is ended. A server that is away
// is asked again at the next beat.
func heartbeat(ctx context.Context, console io.Writer) error {
	dir, away := agent.RunDir(), false
	for wait := time.Duration(0); sleep(ctx, wait) == nil; {
		wait, away = oneBeat(ctx, console, dir, away)
	}
	return nil
}

// oneBeat tells on the console when the server goes and when it is back.
func oneBeat(ctx context.Context, console io.Writer, dir string, away bool) (wait time.Duration, nowAway bool) {
	wait, err := beat(ctx, dir)
	if (err != nil) != away {
		fmt.Fprintf(console, "rhizome-node heartbeat: %s\n", word(err))
	}
	return wait, err != nil
}

func word(err error) string {
	if err == nil {
		return "the server answers again"
	}
	return err.Error()
}

// beat is one heartbeat. A node without a token has told nothing yet: the server
// was away for longer than "up" tries.
func beat(ctx context.Context, dir string) (time.Duration, error) {
	c, err := agent.Find(dir)
	if err != nil {
		return nodeapi.DefaultHeartbeat, err
	}
	if c.Token == "" {
		return upOnce(ctx, dir)
	}
	return c.Heartbeat(ctx, state(dir))
}

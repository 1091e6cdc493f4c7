// Package remote moves images between the store's OCI layout and registries
// that speak the OCI distribution protocol, through oras-go.
//
// What oras leaves to its callers is here: pulls that go on where they
// stopped, pushes that are tried again, registries that stall, lie or die half
// way, and the credentials of podman beside docker's.
package remote

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"rhizome/registry/layout"
	"rhizome/registry/ref"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Options say how to talk to registries. The zero value talks TLS to public
// ones without credentials.
type Options struct {
	// PlainHTTP leaves TLS out.
	PlainHTTP bool
	// CAFile holds certificate authorities, PEM, beside the system's.
	CAFile string
	// Credentials finds what to log in with; nil is Anonymous.
	Credentials Credentials
	// Progress is told of every step; it is called by many goroutines, one at
	// a time. Nil is silence.
	Progress func(Progress)
	Log      *slog.Logger
	// IdleTimeout ends an exchange in which no byte moves; 0 is a minute.
	IdleTimeout time.Duration
	// Attempts is how often a request is tried when its failure may pass; 0 is 6.
	Attempts int
	// Concurrency is how many blobs move at once; 0 is 4.
	Concurrency int
	// Sleep waits between attempts; nil is a timer. Tests hand in a quick one.
	Sleep func(ctx context.Context, d time.Duration) error
	// MountFrom lists repositories of the same host that may hold a blob
	// already, so that the registry copies it by itself. Nil is none.
	MountFrom func(host string) []string
}

// Client talks to registries. It is safe for many goroutines.
type Client struct {
	o    Options
	http *http.Client
	// patient knows how long a registry asked to be left alone.
	patient *patient
	// repositories keeps oras's clients, and with them tokens, by HOST/NAME.
	repositories sync.Map
	// reached is set when any registry has answered.
	reached atomic.Bool
}

// New makes a client; only reading CAFile can fail.
func New(o Options) (*Client, error) {
	o = o.withDefaults()
	transport, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	p := &patient{base: transport}
	return &Client{o: o, http: &http.Client{Transport: p}, patient: p}, nil
}

func (o Options) withDefaults() Options {
	if o.Credentials == nil {
		o.Credentials = Anonymous
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = time.Minute
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// repository makes oras's client of one repository. Credentials are looked up
// for the repository, so each has an auth client of its own over the shared
// connections.
func (c *Client) repository(r ref.Reference) *remote.Repository {
	if known, ok := c.repositories.Load(r.Repository()); ok {
		return known.(*remote.Repository)
	}
	made, _ := c.repositories.LoadOrStore(r.Repository(), c.newRepository(r))
	return made.(*remote.Repository)
}

func (c *Client) newRepository(r ref.Reference) *remote.Repository {
	return &remote.Repository{
		Client: &auth.Client{
			Client: c.http,
			Header: http.Header{"User-Agent": {"rhizome"}},
			Cache:  auth.NewCache(),
			Credential: func(ctx context.Context, host string) (auth.Credential, error) {
				return c.o.Credentials(ctx, host, r.Name)
			},
		},
		Reference:          registry.Reference{Registry: r.Host, Repository: r.Name},
		PlainHTTP:          c.o.PlainHTTP,
		MaxMetadataBytes:   layout.MaxManifestRead,
		TagListMaxPages:    1000,
		ManifestMediaTypes: manifestTypes(),
		SkipReferrersGC:    true,
	}
}

func manifestTypes() []string {
	return []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		layout.MediaTypeDockerList, layout.MediaTypeDockerManifest,
	}
}

// retry runs one exchange until it succeeds, fails for good, or has failed
// often enough without progress. try says whether it moved anything forward,
// which starts the count again.
func (c *Client) retry(ctx context.Context, what string, try func(ctx context.Context) (progress bool, err error)) error {
	for attempt := 1; ; attempt++ {
		progress, err := try(ctx)
		if err == nil {
			c.reached.Store(true)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if progress {
			attempt = 1
			c.reached.Store(true)
		}
		if attempt >= c.o.Attempts || !transient(err, c.reached.Load()) {
			return err
		}
		wait := max(backoff(attempt), c.patient.asked())
		c.o.Log.Warn("trying again", "what", what, "attempt", attempt, "wait", wait, "error", err)
		if err := c.o.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// backoff doubles from a quarter of a second to eight seconds, with jitter so
// that many clients of a registry that comes back do not all ask at once.
func backoff(attempt int) time.Duration {
	d := 250 * time.Millisecond << min(attempt-1, 5)
	return d + rand.N(d/4)
}

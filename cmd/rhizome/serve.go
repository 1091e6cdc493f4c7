package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rhizome/recipes"
	"rhizome/registry/ref"
	"rhizome/registry/store"
	"rhizome/serve"
	"rhizome/serve/boot"
	"rhizome/serve/dhcp"
	httpd "rhizome/serve/http"
	"rhizome/serve/rootfs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// serveOptions are serve's flags.
type serveOptions struct {
	iface      string
	dhcp       string
	frameCache string
	registry   registryFlags
	dryRun     bool
	poll       time.Duration
	admin      []string
	adminAddr  string
}

func (a *app) serveCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve CLUSTER|REF --interface IF",
		Short: "Boot the machines of a cluster: DHCP, TFTP, HTTP and NFS",
		Long: `Boot the machines of a cluster from its pins, or of one image. Only the
machines that the image names are answered, on this one interface; every step
of every boot is a line on stdout. It runs until it is interrupted (exit code
130) or gets SIGTERM (exit code 0).

An image that lies in a registry (HOST/NAME:TAG) is served at once: what nodes
read is fetched first, and the rest of the image behind it. If the registry does
not answer, what was pulled before is served.

A cluster's pins are followed, and so is a tag in a registry: a boot that begins
after a switch gets the new image, one that has begun and a node that runs go on
with the image they began with.`,
		Args: exact(1, "one cluster or image"),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.serve(cmd.Context(), args[0], o)
			if err == nil && interrupted(cmd.Context()) {
				return reported(exitInterrupted)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.iface, "interface", "i", "", "the network interface to answer on")
	f.StringVar(&o.dhcp, "dhcp", "server", "server gives addresses, proxy leaves that to another DHCP server, off is silent")
	_ = cmd.RegisterFlagCompletionFunc("dhcp", oneOf("server", "proxy", "off"))
	f.StringVar(&o.frameCache, "frame-cache", "", "memory for decoded pieces of layers (default: an eighth of the machine's, at least 64M)")
	f.StringSliceVar(&o.admin, "admin-network", nil, "a network (CIDR) or address that may read every node's root over NFS, as the nodes may; repeatable")
	o.registry.add(cmd)
	f.StringVar(&o.adminAddr, "admin", "", "an address (127.0.0.1:8080) outside the nodes' network for operators: the nodes' state, metrics, and the store as a registry to pull from")
	f.DurationVar(&o.poll, "poll", time.Minute, "how often to look whether HOST/NAME:TAG means another image; 0 is never")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be answered to whom, and end")
	a.flagOffers(cmd, "interface", offerInterfaces)
	return a.places(a.jsonFlag(cmd), either(offerClusters, offerImages))
}

func (o serveOptions) check() error {
	switch o.dhcp {
	case "server", "proxy", "off":
	default:
		return usagef("--dhcp is server, proxy or off, not %q", o.dhcp)
	}
	if o.adminAddr != "" {
		if _, err := adminAddr(o.adminAddr); err != nil {
			return err
		}
	}
	if o.poll != 0 && o.poll < time.Second {
		return usagef("--poll is 1s or more, or 0 for never, not %s", o.poll)
	}
	if o.iface == "" && !o.dryRun {
		return usagef("serve needs --interface: the one network interface that the nodes are on")
	}
	return nil
}

func (a *app) serve(ctx context.Context, name string, o serveOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	cacheSize, err := frameCacheSize(o.frameCache)
	if err != nil {
		return err
	}
	admin, err := adminNetworks(o.admin)
	if err != nil {
		return err
	}
	s, err := a.openToServe(name, o.dryRun)
	if err != nil {
		return err
	}
	h := &host{app: a, store: s, fleet: serve.NewFleet(time.Now, admin...), name: name, dhcp: o.dhcp, cache: rootfs.NewCache(cacheSize), registry: o.registry}
	h.loader = &serve.Loader{Source: storeSource{s}, Cache: h.cache, Overlay: h.secrets(ctx).Overlay, Map: true}
	defer h.loader.Close()
	h.fleet.Shelf = h.shelf()
	if o.dryRun { // it leaves no trace but an image that it has to pull: no lease, no nodes' keys
		h.loader.Overlay = nil
	} else if h.lease, err = s.Lease(ctx, servingPurpose+name); err != nil {
		return err
	}
	defer h.lease.Close()
	h.serving = make(chan struct{})
	h.fillUntil, h.stopFilling = context.WithCancel(ctx)
	defer h.closeRemotes()
	if err := h.load(ctx); err != nil {
		return err
	}
	if o.dryRun {
		return a.printAnswers(h.fleet, o)
	}
	return h.run(ctx, o)
}

// openToServe opens the store, which may be a new one where it gets the image from
// a registry.
func (a *app) openToServe(name string, dryRun bool) (*store.Store, error) {
	switch {
	case inRegistry(name):
		return a.makeStore()
	case dryRun:
		return a.openStore()
	}
	return a.openToChange()
}

// inRegistry says whether a name is an image's that lies in a registry.
func inRegistry(name string) bool {
	r, err := ref.Parse(name)
	return err == nil && r.Remote()
}

// adminNetworks reads --admin-network.
func adminNetworks(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if addr, bad := netip.ParseAddr(text); bad == nil {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, usagef("--admin-network: %q is no network; write it as 10.78.0.0/24, or as an address", text)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// frameCacheSize reads --frame-cache.
func frameCacheSize(text string) (int64, error) {
	if text == "" {
		return max(memoryTotal()/8, 64<<20), nil
	}
	n, err := recipes.ParseSize(text)
	if err != nil {
		return 0, usagef("--frame-cache: %w", err)
	}
	if n < 8<<20 {
		return 0, usagef("--frame-cache is at least 8M, since one piece of a layer takes 1M")
	}
	return n, nil
}

// printAnswers is the dry run: what each kind of client of each node would get.
func (a *app) printAnswers(f *serve.Fleet, o serveOptions) error {
	var machines []dhcp.Machine
	for _, m := range f.Machines() {
		machines = append(machines, dhcp.Machine{Cluster: m.Cluster, Node: m.Node, Digest: m.Manifest.String()})
	}
	sortMachines(machines)
	answers := dhcp.Explain(machines, dhcp.Config{Interface: o.iface, Mode: dhcp.Mode(o.dhcp)})
	if a.json {
		return encodeJSON(a.out, answers)
	}
	return dhcp.WriteAnswers(a.out, answers)
}

// host is a running serve: what it boots machines from, and where it tells of
// it.
type host struct {
	*app
	store  *store.Store
	loader *serve.Loader
	cache  *rootfs.Cache
	fleet  *serve.Fleet
	// lease keeps booted, which is what boots begin with, and what they began with
	// before the last switch: they may be under way, and nothing mounted yet.
	lease  *store.Lease
	booted []digest.Digest
	name   string
	// dhcp is the mode of --dhcp.
	dhcp string
	// registry says how to talk to the registry that a remote image lies in;
	// remotes are what came from there, and tag what is followed, or nil.
	registry registryFlags
	remotes  remotes
	tag      *tagWatch
	// filling fetches the rest of remote images from when serving is closed,
	// until fillUntil ends: nodes come first.
	filling     sync.WaitGroup
	serving     chan struct{}
	fillUntil   context.Context
	stopFilling context.CancelFunc
	// cluster is the images' own; generation is that of the pins, 0 where an
	// image is served by its reference.
	cluster    string
	generation int
}

// load reads the pins of a cluster, or one image, and makes its machines boot.
func (h *host) load(ctx context.Context) error {
	pins, err := h.store.Pins(h.name)
	if err == nil {
		return h.loadPins(ctx, pins)
	}
	var missing *store.NotFoundError
	if r, bad := ref.Parse(h.name); bad == nil && r.Remote() {
		return h.loadRemote(ctx, r)
	}
	index, notHere := resolve(ctx, h.store, h.name)
	if notHere != nil {
		if errors.As(err, &missing) && isNotFound(notHere) {
			return fmt.Errorf("%q is neither a cluster nor an image of this store; `rhizome images` lists what is there: %w", h.name, notHere)
		}
		return notHere
	}
	return h.bootImage(ctx, index)
}

// bootImage makes the machines of one image boot.
func (h *host) bootImage(ctx context.Context, index ocispec.Descriptor) error {
	img, err := h.loader.Image(ctx, index)
	if err != nil {
		return err
	}
	return h.boot(ctx, img.Machines, index.Digest)
}

// boot makes these machines the ones that are answered, and keeps what nodes
// that run already began with.
func (h *host) boot(ctx context.Context, machines []*serve.Machine, needs ...digest.Digest) error {
	if err := h.lease.Need(needs...); err != nil {
		return err
	}
	if h.cluster == "" { // events and mounts keep their place while images change
		h.cluster = machines[0].Cluster.Name
	}
	if err := h.keepMounted(ctx); err != nil {
		return err
	}
	if err := h.fleet.Switch(machines); err != nil {
		return err
	}
	h.settle(needs)
	return nil
}

// settle gives up what nothing boots any more.
func (h *host) settle(booted []digest.Digest) {
	former := h.booted
	h.booted = booted
	if err := h.lease.Settle(slices.Concat(booted, former)...); err != nil {
		h.term.logger().Warn("gc keeps more than it must", "error", err)
	}
}

// keepMounted loads the manifests that nodes have mounted, so that their
// handles hold though a newer image is booted now.
func (h *host) keepMounted(ctx context.Context) error {
	mounts, err := h.store.Mounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.Cluster != h.cluster {
			continue
		}
		d, err := h.store.Images().Describe(ctx, m.Manifest)
		if err == nil {
			var machine *serve.Machine
			if machine, err = h.loader.Machine(ctx, d); err == nil {
				h.fleet.Keep(machine)
				if h.dhcp != "off" {
					h.fleet.Resume(machine, m.Since)
				}
			}
		}
		if err != nil {
			h.term.logger().Warn("a node runs from an image that cannot be opened; its file handles are stale", "node", m.Node, "manifest", m.Manifest, "error", err)
		}
	}
	return nil
}

func (h *host) run(ctx context.Context, o serveOptions) error {
	events, err := h.openEvents()
	if err != nil {
		return err
	}
	defer events.close()
	book, closeBook, err := h.openBook(ctx)
	if err != nil {
		return err
	}
	defer closeBook()
	server := &serve.Server{Fleet: h.fleet, OpenBlob: h.openBlob, ReadBlob: h.readBlob, Reads: book}
	board := h.board(server.Counters)
	sink := boot.Sink(func(e boot.Event) {
		events.take(e)
		book.Event(e)
		board.Take(e)
	})
	ctx, stop := context.WithCancel(ctx)
	waitAdmin, err := h.openAdmin(ctx, o.adminAddr, board)
	if err != nil {
		stop()
		return err
	}
	defer waitAdmin()
	defer stop()
	h.cache.SetHooks(h.damageHooks(ctx, h.mender(h.store, o.registry.caFile), sink))
	go h.follow(ctx, sink)
	close(h.serving)
	go h.followTag(ctx, o.poll, sink)
	volumes := h.volumes(sink)
	defer volumes.Close()
	server.Config = serve.Config{Interface: o.iface, DHCP: o.dhcp, Events: sink, Log: h.term.logger(), Now: time.Now}
	server.Backends, server.Node = volumes.Backends(), h.nodeAPI(sink, volumes.Regions())
	return server.Run(ctx)
}

// shelf is the store, for handles of images that are not open.
func (h *host) shelf() *serve.Shelf {
	find := func(fits func(digest.Digest) bool) (ocispec.Descriptor, error) {
		d, ok, err := h.store.Images().Find(fits)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if !ok {
			return ocispec.Descriptor{}, fs.ErrNotExist
		}
		desc, err := h.store.Images().Describe(context.Background(), d)
		if err == nil && desc.MediaType != ocispec.MediaTypeImageManifest {
			err = fs.ErrNotExist
		}
		return desc, missing(err)
	}
	return &serve.Shelf{Loader: h.loader, Find: find, Gone: isNotFound}
}

// openBlob opens a layer's blob for a node that fetches it whole.
func (h *host) openBlob(ctx context.Context, d string) (httpd.BlobFile, error) {
	if err := h.awaitBlob(ctx, digest.Digest(d)); err != nil {
		return nil, err
	}
	blob, err := h.store.Images().Open(ctx, ocispec.Descriptor{Digest: digest.Digest(d)})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

// readBlob opens a layer's blob for a node that reads it in pieces and verifies
// the whole: what is not here yet of one that is being pulled is fetched first.
func (h *host) readBlob(d string) (rootfs.BlobReader, error) {
	if b := h.remotes.layer(digest.Digest(d)); b != nil {
		return b, nil
	}
	blob, err := h.store.Images().Open(context.Background(), ocispec.Descriptor{Digest: digest.Digest(d)})
	if err != nil {
		return nil, err
	}
	return blob, nil
}

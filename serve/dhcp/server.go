package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"rhizome/serve/boot"
)

// DefaultProbe is how often other DHCP servers are looked for.
const DefaultProbe = 10 * time.Minute

// Server answers on one interface. Its fields are set before Serve and not
// changed after.
type Server struct {
	Config Config
	Nodes  Nodes
	// Asks is told of each DISCOVER and BOOTP request before the machine is
	// looked up: what asks is where the machine is in its boot. It may be nil.
	Asks func(mac net.HardwareAddr, k Kind)
	// Events takes what was seen and sent; nil is silence.
	Events boot.Sink
	// Log takes what befalls the interface and the sockets; nil is silence.
	Log *slog.Logger
	// Clock gives the time of events; nil is time.Now.
	Clock func() time.Time
	// PortOwner names the process that has a port ("dnsmasq (pid 812)"), or
	// gives "". It may be nil.
	PortOwner func(network string, port uint16) string
	// ProbeEvery is how often other DHCP servers are looked for; 0 means
	// DefaultProbe, less than 0 never.
	ProbeEvery time.Duration
	// Ready is called each time that the sockets are open; it may be nil.
	Ready func()

	unknown, bad, foreign, conflicts, known, asked *limiter
}

// Serve answers until ctx ends, and returns nil then. It returns an error if it
// cannot begin; later it outlives an interface that goes down, is renamed or
// made anew, and says so.
func (s *Server) Serve(ctx context.Context) error {
	s.defaults()
	changes, stop, err := watchNetwork()
	if err != nil {
		return fmt.Errorf("serving DHCP on %q: %w", s.Config.Interface, err)
	}
	defer stop()
	now := inspect(s.Config.Interface)
	if err := s.usable(now); err != nil {
		return err
	}
	session, err := s.open(ctx, now)
	if err != nil {
		return err
	}
	for session != nil {
		now = s.follow(ctx, now, changes)
		session.close()
		session, now = s.reopen(ctx, now)
	}
	return nil
}

// reopen tries until it succeeds, or gives nil when ctx ends: an interface that
// comes and goes, or an address that another program takes for a moment, must
// not end the service of a rack.
func (s *Server) reopen(ctx context.Context, now state) (*session, state) {
	for ctx.Err() == nil {
		session, err := s.openReady(ctx, now)
		if err == nil {
			return session, now
		}
		s.Log.Error(err.Error()+"; trying again", "interface", s.Config.Interface)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		now = inspect(s.Config.Interface)
	}
	return nil, now
}

// openReady is open for an interface that may be changing.
func (s *Server) openReady(ctx context.Context, now state) (*session, error) {
	if !now.ready() {
		return nil, fmt.Errorf("serving DHCP on %q: the interface is gone, or has no MAC", s.Config.Interface)
	}
	return s.open(ctx, now)
}

func (s *Server) defaults() {
	if s.Clock == nil {
		s.Clock = time.Now
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.ProbeEvery == 0 {
		s.ProbeEvery = DefaultProbe
	}
	s.unknown = newLimiter(time.Minute, 1, maxCauses, s.Clock)
	s.bad = newLimiter(time.Minute, 3, maxCauses, s.Clock)
	s.foreign = newLimiter(10*time.Minute, 1, maxCauses, s.Clock)
	s.conflicts = newLimiter(time.Minute, 1, maxCauses, s.Clock)
	// A boot takes some ten messages; a node that sends more than this in a
	// minute is broken or forged.
	s.known = newLimiter(time.Minute, 100, maxNodes, s.Clock)
	s.asked = newLimiter(30*time.Second, 1, maxNodes, s.Clock)
}

// usable checks the interface before anything is opened on it.
func (s *Server) usable(st state) error {
	switch {
	case !st.exists():
		return fmt.Errorf("serving DHCP on %q: there is no such interface; there are %s", s.Config.Interface, interfaceNames())
	case len(st.mac) != 6:
		return fmt.Errorf("serving DHCP on %q: it is no Ethernet interface", s.Config.Interface)
	}
	if a := s.Config.ServerAddr; a.IsValid() && !st.has(a) {
		return fmt.Errorf("serving DHCP on %q: the interface does not have the server's address %s but %s: add it (ip address add %s/PREFIX dev %s), or name another interface",
			s.Config.Interface, a, st.addresses(), a, s.Config.Interface)
	}
	return nil
}

func interfaceNames() string {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		return "none"
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

// follow returns when the sockets must be opened anew, with the interface as
// it is then, or when ctx ends.
func (s *Server) follow(ctx context.Context, now state, changes <-chan struct{}) state {
	opened := now
	for {
		select {
		case <-ctx.Done():
			return now
		case <-changes:
		}
		next := inspect(s.Config.Interface)
		for _, what := range differences(now, next, s.Config) {
			s.Log.Warn(what, "interface", s.Config.Interface)
		}
		now = next
		if now.ready() && !now.sameLink(opened) {
			return now
		}
	}
}

// openError turns what a socket says into a sentence with its remedy.
func (s *Server) openError(port uint16, err error) error {
	what := fmt.Sprintf("listening for DHCP on %q, UDP port %d", s.Config.Interface, port)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &takenError{fmt.Sprintf("%s: the port is taken by %s: stop it, or serve with --dhcp off", what, s.owner(port))}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w: run as root, or with the capabilities CAP_NET_BIND_SERVICE and CAP_NET_RAW", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// takenError is a port that another process has; it is EADDRINUSE to
// errors.Is.
type takenError struct{ text string }

func (e *takenError) Error() string { return e.text }
func (e *takenError) Unwrap() error { return syscall.EADDRINUSE }

func (s *Server) owner(port uint16) string {
	if s.PortOwner != nil {
		if who := s.PortOwner("udp", port); who != "" {
			return who
		}
	}
	return "another process (see: ss -lunp)"
}

package store

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"
)

// maxOrigins bounds how many repositories are remembered.
const maxOrigins = 64

// Origin is a repository that images of this store came from or went to: where
// a damaged blob can be had again, and what another repository of the same
// registry may mount blobs from.
type Origin struct {
	Host string `json:"host"`
	Name string `json:"name"`
	// PlainHTTP says that the registry was spoken to without TLS.
	PlainHTTP bool      `json:"plainHTTP,omitempty"`
	Used      time.Time `json:"used"`
}

// Origins lists the known repositories, the last used first.
func (s *Store) Origins() ([]Origin, error) {
	var all []Origin
	err := s.readJSON("origins.json", &all)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return all, err
}

// AddOrigin remembers a repository.
func (s *Store) AddOrigin(ctx context.Context, o Origin) error {
	release, err := s.images.Lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	all, err := s.Origins()
	if err != nil {
		return err
	}
	o.Used = s.now().UTC()
	all = slices.DeleteFunc(all, func(have Origin) bool { return have.Host == o.Host && have.Name == o.Name })
	all = append([]Origin{o}, all...)
	return s.writeJSON("origins.json", all[:min(len(all), maxOrigins)])
}

// MountFrom lists the known repositories of a host, for remote.Options.
func (s *Store) MountFrom(host string) []string {
	all, err := s.Origins()
	if err != nil {
		s.log.Debug("not mounting from other repositories", "error", err)
	}
	var names []string
	for _, o := range all {
		if o.Host == host {
			names = append(names, o.Name)
		}
	}
	return names
}

package remote

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Credentials finds what to log in with; the repository matters since podman
// keeps credentials for parts of a registry.
type Credentials func(ctx context.Context, host, repository string) (auth.Credential, error)

// Anonymous logs in nowhere.
func Anonymous(context.Context, string, string) (auth.Credential, error) {
	return auth.EmptyCredential, nil
}

// CredentialFiles lists the files that podman and docker keep credentials in,
// the first match first (containers-auth.json(5); docker's config.json).
// getenv reads the environment; home is the user's folder.
func CredentialFiles(getenv func(string) string, home string) []string {
	config := getenv("XDG_CONFIG_HOME")
	if config == "" && home != "" {
		config = filepath.Join(home, ".config")
	}
	docker := getenv("DOCKER_CONFIG")
	if docker == "" && home != "" {
		docker = filepath.Join(home, ".docker")
	}
	var files []string
	for _, f := range [][2]string{
		{getenv("REGISTRY_AUTH_FILE"), ""},
		{getenv("XDG_RUNTIME_DIR"), "containers/auth.json"},
		{config, "containers/auth.json"},
		{docker, "config.json"},
	} {
		if f[0] != "" {
			files = append(files, filepath.Join(f[0], f[1]))
		}
	}
	return files
}

// FileCredentials reads the files, passing over those that do not exist, and
// asks the credential helpers that they name.
func FileCredentials(files ...string) Credentials {
	return func(ctx context.Context, host, repository string) (auth.Credential, error) {
		for _, file := range files {
			cred, err := fromFile(ctx, file, credentialKeys(host, repository))
			if err != nil {
				return cred, fmt.Errorf("looking for the credentials of %q in %q: %w", host, file, err)
			}
			if cred != auth.EmptyCredential {
				return cred, nil
			}
		}
		return auth.EmptyCredential, nil
	}
}

func fromFile(ctx context.Context, file string, keys []string) (auth.Credential, error) {
	store, err := credentials.NewStore(file, credentials.StoreOptions{})
	if err != nil {
		return auth.EmptyCredential, err
	}
	for _, key := range keys {
		if cred, err := store.Get(ctx, key); err != nil || cred != auth.EmptyCredential {
			return cred, err
		}
	}
	return auth.EmptyCredential, nil
}

// credentialKeys lists the keys under which a credential may stand, the
// narrowest first: host/a/b, host/a, host, and docker hub's own spellings.
func credentialKeys(host, repository string) []string {
	var keys []string
	for name := repository; name != "" && name != "."; name = parent(name) {
		keys = append(keys, host+"/"+name)
	}
	keys = append(keys, host)
	if server := credentials.ServerAddressFromHostname(host); server != host {
		keys = append(keys, server, "docker.io")
	}
	return keys
}

func parent(name string) string {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return ""
	}
	return name[:i]
}

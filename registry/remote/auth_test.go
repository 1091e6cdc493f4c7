package remote_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rhizome/registry/registrytest"
	"rhizome/registry/remote"

	"golang.org/x/crypto/bcrypt"
)

// guarded starts a registry that wants the user ada with the password secret.
func guarded(t *testing.T) *registrytest.Registry {
	t.Helper()
	sum, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, fmt.Appendf(nil, "ada:%s\n", sum), 0o600); err != nil {
		t.Fatal(err)
	}
	return registrytest.Docker(t, "docker-registry", "REGISTRY_AUTH=htpasswd",
		"REGISTRY_AUTH_HTPASSWD_REALM=test", "REGISTRY_AUTH_HTPASSWD_PATH="+file)
}

// authFile writes a file as `podman login` and `docker login` do.
func authFile(t *testing.T, key, password string) string {
	t.Helper()
	secret := base64.StdEncoding.EncodeToString([]byte("ada:" + password))
	data, err := json.Marshal(map[string]any{"auths": map[string]any{key: map[string]string{"auth": secret}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCredentialsOpenARegistryAndTheirLackIsSaid(t *testing.T) {
	reg := guarded(t)
	l := open(t)
	image := registrytest.Cluster(t, l, 1)
	missing := filepath.Join(t.TempDir(), "none.json")
	for _, c := range []struct {
		name  string
		files []string
		ok    bool
	}{
		{"none", nil, false},
		{"a wrong password", []string{authFile(t, reg.Host, "wrong")}, false},
		{"the host's", []string{missing, authFile(t, reg.Host, "secret")}, true},
		{"podman's for a part of the host", []string{authFile(t, reg.Host+"/team", "secret")}, true},
		{"the narrower before the wider", []string{bothFile(t, reg.Host)}, true},
		{"docker's with a scheme", []string{authFile(t, "https://"+reg.Host+"/v1/", "secret")}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := client(t, remote.Options{Credentials: remote.FileCredentials(c.files...)})
			err := push(t, client, l, image, reg.Host+"/team/web:1")
			if !c.ok {
				kind(t, err, remote.Denied, "podman login")
				_, err = pull(t, client, reg.Host+"/team/web:1", open(t))
				kind(t, err, remote.Denied, "podman login")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d, err := pull(t, client, reg.Host+"/team/web:1", open(t)); err != nil || d.Digest != image.Digest {
				t.Errorf("pulled %v, %v", d.Digest, err)
			}
		})
	}
}

func bothFile(t *testing.T, host string) string {
	t.Helper()
	auth := func(password string) map[string]string {
		return map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte("ada:" + password))}
	}
	data, err := json.Marshal(map[string]any{"auths": map[string]any{host: auth("wrong"), host + "/team/web": auth("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestACredentialHelperIsAsked(t *testing.T) {
	reg := guarded(t)
	dir := t.TempDir()
	script := "#!/bin/sh\necho '{\"Username\":\"ada\",\"Secret\":\"secret\"}'\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-rhizometest"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	file := filepath.Join(dir, "config.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"credHelpers":{%q:"rhizometest"}}`, reg.Host), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t)
	c := client(t, remote.Options{Credentials: remote.FileCredentials(file)})
	if err := push(t, c, l, registrytest.Cluster(t, l, 1), reg.Host+"/web:1"); err != nil {
		t.Error(err)
	}
}

func TestATornCredentialFileIsNamed(t *testing.T) {
	reg := guarded(t)
	file := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pull(t, client(t, remote.Options{Credentials: remote.FileCredentials(file)}), reg.Host+"/web:1", open(t))
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("it gives %v", err)
	}
}

func TestCredentialFilesAreFoundWherePodmanAndDockerPutThem(t *testing.T) {
	env := map[string]string{"REGISTRY_AUTH_FILE": "/a/auth", "XDG_RUNTIME_DIR": "/run/user/1000", "DOCKER_CONFIG": "/docker"}
	got := remote.CredentialFiles(func(k string) string { return env[k] }, "/home/ada")
	want := []string{"/a/auth", "/run/user/1000/containers/auth.json", "/home/ada/.config/containers/auth.json", "/docker/config.json"}
	if !slices.Equal(got, want) {
		t.Errorf("the files are %q, want %q", got, want)
	}
	got = remote.CredentialFiles(func(string) string { return "" }, "/home/ada")
	if want := []string{"/home/ada/.config/containers/auth.json", "/home/ada/.docker/config.json"}; !slices.Equal(got, want) {
		t.Errorf("the files are %q, want %q", got, want)
	}
}

// Hub and most hosted registries give tokens for a repository and an action
// (distribution, "Token Authentication").
func TestTokensAreFetchedForTheRepository(t *testing.T) {
	f, l := newFake(), open(t)
	proxy := registrytest.NewProxy(t, "")
	var scope string
	proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			scope = r.URL.Query().Get("scope")
			user, password, _ := r.BasicAuth()
			fmt.Fprintf(w, `{"token":"for-%s-%s"}`, user, password)
		case r.Header.Get("Authorization") != "Bearer for-ada-secret":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:team/web:pull"`, proxy.URL))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return f.serve(w, r)
		}
		return true
	})
	c := client(t, remote.Options{Credentials: remote.FileCredentials(authFile(t, proxy.Host(), "secret"))})
	if _, err := pull(t, c, proxy.Host()+"/team/web:1", l); err != nil {
		t.Fatal(err)
	}
	if scope != "repository:team/web:pull" {
		t.Errorf("the token's scope was %q", scope)
	}
}

// A token runs out in a long push: also between the two requests of one upload,
// of which oras takes the first one's token for the second.
func TestATokenThatRunsOutInAPushIsFetchedAgain(t *testing.T) {
	reg := registrytest.Docker(t, "docker-registry")
	proxy, l := registrytest.NewProxy(t, reg.Host), open(t)
	var mu sync.Mutex
	uses := map[string]int{}
	proxy.SetHook(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			token := fmt.Sprintf("token-%d", len(uses))
			uses[token] = 0
			fmt.Fprintf(w, `{"token":%q}`, token)
			return true
		}
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if n, ok := uses[token]; ok && n < 2 {
			uses[token]++
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:web:pull,push"`, proxy.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	image := registrytest.Cluster(t, l, 7)
	c := client(t, remote.Options{Concurrency: 1, Credentials: remote.FileCredentials(authFile(t, proxy.Host(), "secret"))})
	if err := push(t, c, l, image, proxy.Host()+"/web:1"); err != nil {
		t.Fatal(err)
	}
	if len(uses) < 4 {
		t.Errorf("%d tokens were fetched: none ran out", len(uses))
	}
}

// certificate makes a private authority and a certificate for 127.0.0.1 by it.
func certificate(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a private authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, root, root, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", der), write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", raw)
}

func TestAPrivateAuthorityIsTrustedWhenNamed(t *testing.T) {
	ca, cert, key := certificate(t)
	reg := registrytest.Docker(t, "docker-registry", "REGISTRY_HTTP_TLS_CERTIFICATE="+cert, "REGISTRY_HTTP_TLS_KEY="+key)
	l := open(t)
	image := registrytest.Cluster(t, l, 1)
	if err := push(t, client(t, remote.Options{CAFile: ca}), l, image, reg.Host+"/web:1"); err != nil {
		t.Fatal(err)
	}
	if d, err := pull(t, client(t, remote.Options{CAFile: ca}), reg.Host+"/web:1", open(t)); err != nil || d.Digest != image.Digest {
		t.Errorf("pulled %v, %v", d.Digest, err)
	}
	unaware, err := remote.New(remote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = pull(t, unaware, reg.Host+"/web:1", open(t))
	kind(t, err, remote.Untrusted, "--ca-file")
	plain := registrytest.Docker(t, "docker-registry")
	_, err = pull(t, unaware, plain.Host+"/web:1", open(t))
	kind(t, err, remote.Untrusted, "--plain-http")
	_, err = pull(t, client(t, remote.Options{}), reg.Host+"/web:1", open(t))
	kind(t, err, remote.Refused, "400")
}

func TestAFileWithoutCertificatesIsNoAuthority(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{file, file + ".none"} {
		if _, err := remote.New(remote.Options{CAFile: f}); err == nil || !strings.Contains(err.Error(), f) {
			t.Errorf("it gives %v", err)
		}
	}
}

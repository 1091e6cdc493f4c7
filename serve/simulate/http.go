package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// scriptLimit is more than any boot script has, in bytes.
const scriptLimit = 64 << 10

// fetch does as iPXE does: the script, then what the script says, one
// connection for all.
func (m *machine) fetch() error {
	dial := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(m.node.Addr, 0))}
	transport := &http.Transport{DialContext: dial.DialContext, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var script strings.Builder
	if err := m.get(client, "http://"+m.plan.Server.String()+"/boot.ipxe", &script); err != nil {
		return err
	}
	urls := urlsOf(script.String())
	if len(urls) == 0 {
		return fmt.Errorf("the boot script names nothing to fetch: %.200q", script.String())
	}
	for _, u := range urls {
		if err := m.get(client, u, io.Discard); err != nil {
			return err
		}
	}
	return nil
}

// urlsOf lists what the script's "kernel" and "initrd" lines fetch.
func urlsOf(script string) []string {
	var urls []string
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != "kernel" && words[0] != "initrd" {
			continue
		}
		for _, w := range words[1:] {
			if strings.HasPrefix(w, "http://") {
				urls = append(urls, w)
				break
			}
		}
	}
	return urls
}

func (m *machine) get(client *http.Client, url string, to io.Writer) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	body := io.Reader(resp.Body)
	if to != io.Discard {
		body = io.LimitReader(body, scriptLimit)
	}
	n, err := io.Copy(to, body)
	m.count.Bytes += n
	m.count.Calls++
	if resp.StatusCode != http.StatusOK && err == nil {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}

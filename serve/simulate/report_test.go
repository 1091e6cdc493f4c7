package simulate

import (
	"strings"
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(200-i)*time.Second)
	}
	for p, want := range map[float64]time.Duration{0: 1, 50: 100, 99: 198, 100: 200} {
		if got := percentile(all, p); got != want*time.Second {
			t.Errorf("the %v. percentile of 1 to 200 is %s, want %ds", p, got, want)
		}
	}
	if got := percentile(nil, 99); got != 0 {
		t.Errorf("of nothing: %s", got)
	}
}

func TestReportTellsFailuresApart(t *testing.T) {
	up := Boot{Node: "n1", Took: 3 * time.Second, By: map[string]Counts{
		"dhcp": {Calls: 4, Again: 1, Bytes: 1200, Took: time.Second}, "nfs": {Calls: 100, Bytes: 5000, Took: 2 * time.Second}}}
	down := Boot{Node: "n2", Error: "mount: no", By: map[string]Counts{"dhcp": {Calls: 4}}}
	r := Summarize([]Boot{up, down, down})
	if r.Up != 1 || r.Failed != 2 || r.Errors["mount: no"] != 2 {
		t.Errorf("the report counts %+v", r)
	}
	if r.Total.Calls != 104 || r.Total.Bytes != 6200 || r.Total.P99 != 3*time.Second {
		t.Errorf("the whole is %+v: calls of nodes that failed do not count", r.Total)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 of 3 simulated nodes came up", "2 failed: mount: no"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, text.String())
		}
	}
}

func TestScriptSaysWhatToFetch(t *testing.T) {
	got := urlsOf("#!ipxe\necho http://no/where\nkernel http://s/files/vmlinuz initrd=initrd quiet || goto failed\ninitrd --name initrd http://s/files/initrd || goto failed\nboot\n")
	if len(got) != 2 || got[0] != "http://s/files/vmlinuz" || got[1] != "http://s/files/initrd" {
		t.Errorf("it fetches %q", got)
	}
}

// A reply that lies about its lengths ends as short, and takes no memory.
func FuzzResults(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &results{rest: data}
		b := r.opaque()
		if len(b) > len(data) {
			t.Errorf("%d bytes out of %d", len(b), len(data))
		}
		if !r.short && string(xdr{}.opaque(string(b))) != string(data[:len(data)-len(r.rest)]) && len(b)%4 == 0 {
			t.Errorf("%x does not write back as it was read", data)
		}
	})
}

package main

import (
	"testing"
)

func TestTheKernelsTablesAreRead(t *testing.T) {
	all := parseNeighbours([]byte("IP address       HW type     Flags       HW address            Mask     Device\n" +
		"10.77.0.11       0x1         0x2         52:54:00:77:00:01     *        eth1\n" +
		"10.77.0.12       0x1         0x0         00:00:00:00:00:00     *        eth1\n" +
		"10.77.0.13       0x1         0x6         52:54:00:77:00:03     *        eth2\n"))
	if len(all) != 2 || all[0].addr.String() != "10.77.0.11" || all[0].mac.String() != "52:54:00:77:00:01" || all[1].on != "eth2" {
		t.Errorf("%+v", all)
	}
	if n := meminfo([]byte("MemTotal:       16000 kB\nMemAvailable:    8000 kB\n"), "MemAvailable:"); n != 8000<<10 {
		t.Errorf("%d bytes are available", n)
	}
	if n := meminfo([]byte("MemAvailable: x kB\n"), "MemAvailable:"); n != 0 {
		t.Errorf("%d bytes", n)
	}
	for text, want := range map[string]string{
		"0::/system.slice/x.service\n": "/system.slice/x.service",
		"12:cpu:/a\n0::/\n":            "/",
		"1:name=systemd:/\n":           "",
	} {
		if got := unifiedGroup([]byte(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

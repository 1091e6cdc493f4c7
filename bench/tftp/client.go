package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// download is one file on its way in (RFC 1350, RFC 7440 section 4).
type download struct {
	conn    *net.UDPConn
	server  netip.AddrPort
	block   int
	window  int
	bytes   int64
	last    uint16 // the last block in order
	since   int    // blocks since the last acknowledgement
	repeats int
	ended   bool
	delay   time.Duration
}

func fetch(server netip.AddrPort, name string, block, window int, delay time.Duration) (*download, error) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(4 << 20)
	d := &download{conn: conn, server: server, block: 512, window: 1, delay: delay}
	options := []string{"tsize", "0", "blksize", strconv.Itoa(block)}
	if window > 1 {
		options = append(options, "windowsize", strconv.Itoa(window))
	}
	request := append([]byte{0, 1}, name+"\x00octet\x00"...)
	for _, o := range options {
		request = append(append(request, o...), 0)
	}
	if _, err := conn.WriteToUDPAddrPort(request, server); err != nil {
		return nil, err
	}
	return d, d.run()
}

func (d *download) run() error {
	b := make([]byte, 65536)
	for silent := 0; !d.ended; {
		_ = d.conn.SetReadDeadline(time.Now().Add(time.Second))
		n, from, err := d.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			if silent++; silent > 5 {
				return fmt.Errorf("the server fell silent after block %d", d.last)
			}
			d.acknowledge()
			continue
		}
		silent, d.server = 0, from
		if err := d.take(b[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (d *download) take(p []byte) error {
	if len(p) < 4 {
		return nil
	}
	switch p[1] {
	case 3:
		d.data(binary.BigEndian.Uint16(p[2:]), p[4:])
	case 5:
		return fmt.Errorf("the server said: %s", p[4:])
	case 6:
		d.options(p[2:])
		d.acknowledge()
	}
	return nil
}

func (d *download) options(p []byte) {
	words := bytes.Split(p, []byte{0})
	for i := 0; i+1 < len(words); i += 2 {
		n, _ := strconv.Atoi(string(words[i+1]))
		switch string(words[i]) {
		case "blksize":
			d.block = n
		case "windowsize":
			d.window = n
		}
	}
}

// data takes a block. One that is out of order is answered once with the last
// that was in order, so that the window begins there again.
func (d *download) data(n uint16, body []byte) {
	if n != d.last+1 {
		if d.since >= 0 {
			d.repeats++
			d.acknowledge()
			d.since = -1
		}
		return
	}
	d.last = n
	d.bytes += int64(len(body))
	d.since = max(d.since, 0) + 1
	d.ended = len(body) < d.block
	if d.since >= d.window || d.ended {
		d.acknowledge()
	}
}

func (d *download) acknowledge() {
	d.since = 0
	for late := time.Now().Add(d.delay); time.Now().Before(late); {
		// A timer is too coarse for 200 us.
	}
	_, _ = d.conn.WriteToUDPAddrPort([]byte{0, 4, byte(d.last >> 8), byte(d.last)}, d.server)
}

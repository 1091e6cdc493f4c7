// Extract turns a packet capture (pcap, perhaps gzipped, Ethernet) into the
// RPC calls in it, one a line: the transport, the port they went to, and the
// message in hexadecimal.
//
//	go run ./testdata/extract capture.pcap.gz | gzip -9n > testdata/NAME.calls.gz
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
)

func main() {
	packets, err := read(os.Args[1])
	if err != nil {
		log.Fatalf("reading the capture %q: %v", os.Args[1], err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	e := extractor{out: out, streams: map[string]*stream{}}
	for _, p := range packets {
		e.packet(p)
	}
}

// read gives the packets of a capture file (pcap-savefile(5)).
func read(name string) ([][]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var src io.Reader = bufio.NewReader(f)
	if magic, _ := src.(*bufio.Reader).Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		if src, err = gzip.NewReader(src); err != nil {
			return nil, err
		}
	}
	if _, err := io.CopyN(io.Discard, src, 24); err != nil {
		return nil, err
	}
	var packets [][]byte
	for {
		var head [16]byte
		if _, err := io.ReadFull(src, head[:]); err != nil {
			return packets, nil
		}
		p := make([]byte, binary.LittleEndian.Uint32(head[8:]))
		if _, err := io.ReadFull(src, p); err != nil {
			return packets, err
		}
		packets = append(packets, p)
	}
}

// stream is what a client sent over one TCP connection.
type stream struct {
	next uint32
	data []byte
}

type extractor struct {
	out     io.Writer
	streams map[string]*stream
}

// packet looks for calls in an Ethernet frame.
func (e *extractor) packet(p []byte) {
	if len(p) < 14+20 || binary.BigEndian.Uint16(p[12:]) != 0x0800 {
		return
	}
	ip := p[14:]
	size := int(ip[0]&15) * 4
	body := ip[size:binary.BigEndian.Uint16(ip[2:])]
	port := binary.BigEndian.Uint16(body[2:])
	switch {
	case ip[9] == 17 && (port == 111 || port == 2049 || port == 20048):
		e.call("udp", port, body[8:])
	case ip[9] == 6 && port == 2049:
		e.segment(string(ip[12:20])+string(body[:4]), port, body)
	}
}

// segment adds a TCP segment to its stream. Segments out of order do not occur
// in the captures; those sent again are left out.
func (e *extractor) segment(key string, port uint16, tcp []byte) {
	seq, data := binary.BigEndian.Uint32(tcp[4:]), tcp[int(tcp[12]>>4)*4:]
	if tcp[13]&2 != 0 {
		e.streams[key] = &stream{next: seq + 1}
		return
	}
	s := e.streams[key]
	if s == nil || seq != s.next {
		return
	}
	s.next += uint32(len(data))
	s.data = append(s.data, data...)
	for len(s.data) >= 4 {
		n := int(binary.BigEndian.Uint32(s.data) &^ (1 << 31))
		if len(s.data) < 4+n {
			return
		}
		e.call("tcp", port, s.data[4:4+n])
		s.data = s.data[4+n:]
	}
}

func (e *extractor) call(transport string, port uint16, msg []byte) {
	fmt.Fprintf(e.out, "%s %d %x\n", transport, port, msg)
}

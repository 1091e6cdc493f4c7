package tftp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Opcodes (RFC 1350 section 5, RFC 2347).
const (
	opRRQ   = 1
	opWRQ   = 2
	opDATA  = 3
	opACK   = 4
	opERROR = 5
	opOACK  = 6
)

// Error codes (RFC 1350 appendix; 8 is RFC 2347's).
const (
	codeUndefined = 0
	codeNotFound  = 1
	codeAccess    = 2
	codeIllegal   = 4
	codeOption    = 8
)

// header is the length of opcode and block number, in bytes.
const header = 4

// maxOptions bounds what one request may carry; four are defined.
const maxOptions = 16

// Request is a read or write request.
type Request struct {
	// Write is set for WRQ.
	Write bool
	Name  string
	// Mode is in lower case: "octet", "netascii", "mail".
	Mode string
	// Options stand in the order of the request, names in lower case, each once.
	Options []Option
}

// Option is a name and value of RFC 2347.
type Option struct{ Name, Value string }

// ParseRequest reads an RRQ or WRQ (RFC 1350 figure 5-1, RFC 2347). What some
// ROMs leave behind the last option, padding or half an option, is ignored.
func ParseRequest(p []byte) (Request, error) {
	if len(p) < 2 {
		return Request{}, errors.New("the packet is shorter than an opcode")
	}
	op := binary.BigEndian.Uint16(p)
	if op != opRRQ && op != opWRQ {
		return Request{}, fmt.Errorf("opcode %d is not a request", op)
	}
	name, rest, ok := cutString(p[2:])
	if !ok || name == "" {
		return Request{}, errors.New("the request holds no file name that ends")
	}
	mode, rest, ok := cutString(rest)
	if !ok || mode == "" {
		return Request{}, errors.New("the request holds no mode that ends")
	}
	return Request{Write: op == opWRQ, Name: name, Mode: strings.ToLower(mode), Options: parseOptions(rest)}, nil
}

// parseOptions takes whole pairs as long as there are any. Option names have no
// case (RFC 2347); of a repeated option the first counts.
func parseOptions(p []byte) []Option {
	var options []Option
	for len(options) < maxOptions {
		name, rest, ok := cutString(p)
		if !ok || name == "" {
			break
		}
		value, rest, ok := cutString(rest)
		if !ok {
			break
		}
		p = rest
		name = strings.ToLower(name)
		if _, have := find(options, name); !have {
			options = append(options, Option{name, value})
		}
	}
	return options
}

func cutString(p []byte) (s string, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(p, []byte{0})
	return string(head), rest, ok
}

func find(options []Option, name string) (string, bool) {
	for _, o := range options {
		if o.Name == name {
			return o.Value, true
		}
	}
	return "", false
}

// reply is what a client sends during a transfer: an acknowledgement or an
// error.
type reply struct {
	op      uint16
	block   uint16
	code    uint16
	message string
}

// parseReply reads an ACK or ERROR. Other opcodes have no place in a read.
func parseReply(p []byte) (reply, error) {
	if len(p) < header {
		return reply{}, errors.New("the packet is shorter than an acknowledgement")
	}
	op, n := binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	switch op {
	case opACK:
		return reply{op: op, block: n}, nil
	case opERROR:
		message, _, _ := bytes.Cut(p[header:], []byte{0})
		return reply{op: op, code: n, message: string(message[:min(len(message), 200)])}, nil
	}
	return reply{}, fmt.Errorf("opcode %d has no place in a read", op)
}

// appendError writes an ERROR packet. The message is cut to what the smallest
// firmware buffers hold.
func appendError(b []byte, code uint16, message string) []byte {
	b = binary.BigEndian.AppendUint16(b, opERROR)
	b = binary.BigEndian.AppendUint16(b, code)
	b = append(b, message[:min(len(message), 400)]...)
	return append(b, 0)
}

func appendOACK(b []byte, options []Option) []byte {
	b = binary.BigEndian.AppendUint16(b, opOACK)
	for _, o := range options {
		b = append(append(b, o.Name...), 0)
		b = append(append(b, o.Value...), 0)
	}
	return b
}

package rpc

import "sync/atomic"

// The portmapper (RFC 1833, 3): its program, version, port and procedures.
const (
	PortmapProgram = 100000
	PortmapPort    = 111

	portmapVersion = 2

	pmapNull    = 0
	pmapSet     = 1
	pmapUnset   = 2
	pmapGetport = 3
	pmapDump    = 4
)

// Mapping says at which port a version of a program is served.
type Mapping struct {
	Program, Version uint32
	Transport        Transport
	Port             uint16
}

// Portmapper answers where programs are. It says so over all addresses, takes
// no registrations of others, and forwards no calls (CALLIT lets strangers
// hide behind it).
type Portmapper struct{ mappings atomic.Pointer[[]Mapping] }

// NewPortmapper knows the mappings it is given, to which it adds itself.
func NewPortmapper(ms ...Mapping) *Portmapper {
	p := &Portmapper{}
	p.Set(ms...)
	return p
}

// Set replaces what the portmapper knows.
func (p *Portmapper) Set(ms ...Mapping) {
	// rpcinfo asks for the portmapper's own port and believes nothing but 111.
	all := append([]Mapping{
		{PortmapProgram, portmapVersion, TCP, PortmapPort},
		{PortmapProgram, portmapVersion, UDP, PortmapPort},
	}, ms...)
	p.mappings.Store(&all)
}

// Program is the portmapper as a program of a Server. Versions 3 and 4
// (rpcbind) get PROG_MISMATCH, and clients fall back.
func (p *Portmapper) Program() Program {
	return Program{Number: PortmapProgram, Versions: []uint32{portmapVersion}, Handler: p}
}

// Serve answers one call.
func (p *Portmapper) Serve(c *Call, out *Reply) Status {
	switch c.Procedure {
	case pmapNull:
	case pmapSet, pmapUnset:
		out.Bool(false)
	case pmapGetport:
		return p.getport(c, out)
	case pmapDump:
		p.dump(out)
	default:
		return ProcUnavail
	}
	return Success
}

// getport answers with port 0 where nothing is known (RFC 1833, 3.2). The port
// in the question is not looked at.
func (p *Portmapper) getport(c *Call, out *Reply) Status {
	d := NewDecoder(c.Args)
	program, version, transport := d.Uint32(), d.Uint32(), d.Uint32()
	d.Uint32()
	if !d.Ok() {
		return GarbageArgs
	}
	out.Uint32(uint32(find(*p.mappings.Load(), program, version, transport)))
	return Success
}

// find is the port of a program. One that is there in other versions only is
// named as well, as rpcbind does: the program itself says which it has.
func find(ms []Mapping, program, version, transport uint32) uint16 {
	port := uint16(0)
	for _, m := range ms {
		if m.Program != program || uint32(m.Transport) != transport {
			continue
		}
		if m.Version == version {
			return m.Port
		}
		port = m.Port
	}
	return port
}

func (p *Portmapper) dump(out *Reply) {
	for _, m := range *p.mappings.Load() {
		out.Bool(true)
		m.append(out)
	}
	out.Bool(false)
}

func (m Mapping) append(out *Reply) {
	out.Uint32(m.Program)
	out.Uint32(m.Version)
	out.Uint32(uint32(m.Transport))
	out.Uint32(uint32(m.Port))
}

package rpc

import (
	"bytes"
	"slices"
	"testing"
)

func words(vs ...uint32) []byte {
	out := &Reply{}
	for _, v := range vs {
		out.Uint32(v)
	}
	return out.buf
}

func TestCallHeaderVerdicts(t *testing.T) {
	sys := func(body ...uint32) []byte { return append(words(AuthSys, uint32(4*len(body))), words(body...)...) }
	call := func(cred []byte) []byte {
		return slices.Concat(words(9, msgCall, 2, 100003, 3, 1), cred, words(0, 0, 77))
	}
	cases := map[string]struct {
		msg  []byte
		want verdict
	}{
		"AUTH_NONE":                       {call(words(0, 0)), dispatch},
		"AUTH_SYS":                        {call(sys(1, 0, 501, 20, 2, 5, 6)), dispatch},
		"AUTH_SYS with 17 groups":         {call(sys(append([]uint32{1, 0, 501, 20, 17}, make([]uint32, 17)...)...)), denyCred},
		"AUTH_SYS that counts 2^32-1":     {call(sys(1, 0, 501, 20, 1<<32-1)), denyCred},
		"AUTH_SYS with a huge hostname":   {call(sys(1, 1<<31, 501, 20, 0)), denyCred},
		"AUTH_SYS cut short":              {call(sys(1, 0, 501)), denyCred},
		"RPCSEC_GSS":                      {call(words(6, 4, 1)), denyCred},
		"credential of 404 bytes":         {call(append(words(1, 404), make([]byte, 404)...)), denyCred},
		"credential that claims 2^32-1":   {words(9, 0, 2, 100003, 3, 1, 1, 1<<32-1), denyCred},
		"RPC version 3":                   {words(9, 0, 3), denyVersion},
		"a reply":                         {words(9, 1, 0, 0, 0, 0), drop},
		"nothing":                         {nil, drop},
		"seven bytes":                     {make([]byte, 7), drop},
		"no verifier":                     {words(9, 0, 2, 100003, 3, 1, 0, 0), drop},
		"verifier that claims 2^32-1":     {words(9, 0, 2, 100003, 3, 1, 0, 0, 0, 1<<32-1), drop},
		"credential whose padding is off": {words(9, 0, 2, 100003, 3, 1, 0, 3), denyCred},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got Call
			if v := parseCall(c.msg, &got); v != c.want {
				t.Errorf("verdict %d, want %d", v, c.want)
			}
		})
	}
}

func TestCredentialIsRead(t *testing.T) {
	var c Call
	msg := slices.Concat(words(9, 0, 2, 1, 2, 3), words(AuthSys, 28, 1, 0, 501, 20, 2, 5, 6), words(0, 0), []byte("args"))
	if v := parseCall(msg, &c); v != dispatch {
		t.Fatalf("verdict %d", v)
	}
	if c.Cred.UID != 501 || c.Cred.GID != 20 || !slices.Equal(c.Cred.Groups(), []uint32{5, 6}) || !c.Cred.InGroup(6) || c.Cred.InGroup(7) {
		t.Errorf("read as %+v", c.Cred)
	}
	if string(c.Args) != "args" {
		t.Errorf("arguments %q", c.Args)
	}
	// The next call on the connection has no credential: nothing of the last one stays.
	parseCall(slices.Concat(words(9, 0, 2, 1, 2, 3, 0, 0, 0, 0)), &c)
	if c.Cred.UID != Nobody || c.Cred.GID != Nobody || len(c.Cred.Groups()) != 0 {
		t.Errorf("AUTH_NONE read as %+v", c.Cred)
	}
}

// FuzzParseCall: a call that is understood, written again from what was
// understood, is understood alike; and nothing points outside the message.
func FuzzParseCall(f *testing.F) {
	f.Add(slices.Concat(words(9, 0, 2, 100003, 3, 1), words(AuthSys, 28, 1, 0, 501, 20, 2, 5, 6), words(0, 0), []byte("args")))
	f.Add(words(9, 0, 2, 100000, 2, 3, 0, 0, 0, 0, 100003, 3, 17, 0))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var c Call
		if parseCall(msg, &c) != dispatch {
			return
		}
		if !bytes.HasSuffix(msg, c.Args) {
			t.Fatalf("the arguments are not the end of the message")
		}
		out := &Reply{}
		for _, v := range []uint32{c.XID, msgCall, rpcVersion, c.Program, c.Version, c.Procedure} {
			out.Uint32(v)
		}
		if c.Cred.Flavor == AuthSys {
			body := words(append([]uint32{0, 0, c.Cred.UID, c.Cred.GID, uint32(len(c.Cred.Groups()))}, c.Cred.Groups()...)...)
			out.Uint32(AuthSys)
			out.Opaque(body)
		} else {
			out.Uint64(0)
		}
		out.Uint64(0)
		out.Raw(c.Args)
		var again Call
		if v := parseCall(out.buf, &again); v != dispatch {
			t.Fatalf("what was understood is not understood again: %d", v)
		}
		if again.XID != c.XID || again.Procedure != c.Procedure || again.Cred != c.Cred || !bytes.Equal(again.Args, c.Args) {
			t.Errorf("%+v became %+v", c, again)
		}
	})
}

// FuzzDecoder: whatever is read in whatever order, the decoder never goes
// back, never gives more than was there, and stays bad once it is.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 1}, []byte{3, 2})
	f.Fuzz(func(t *testing.T, data, program []byte) {
		d := NewDecoder(data)
		for _, op := range program {
			before, bad := len(d.Rest()), !d.Ok()
			got := 0
			switch op % 5 {
			case 0:
				d.Uint32()
			case 1:
				d.Uint64()
			case 2:
				d.Bool()
			case 3:
				got = len(d.Opaque(int(op)))
			case 4:
				got = len(d.Fixed(int(op)))
			}
			if len(d.Rest()) > before || got > before || bad && d.Ok() {
				t.Fatalf("step %d: %d bytes became %d", op, before, len(d.Rest()))
			}
		}
	})
}

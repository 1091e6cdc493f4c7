package dhcp

import (
	"fmt"

	"rhizome/serve/boot"
)

// event is the frame of an event of this request.
func (q question) event(k boot.Kind) boot.Event {
	e := boot.Event{Kind: k, Node: q.m.Node.Name, MAC: q.ClientHWAddr.String(), Digest: q.m.Digest, Client: q.Client.Name}
	if giaddr := q.giaddr(); !giaddr.IsUnspecified() {
		e.Detail = "by relay " + giaddr.String()
	}
	return e
}

// passed is no answer where none is due: nothing is wrong.
func (q question) passed(k boot.Kind, why string) Decision {
	e := q.event(k)
	e.Detail = join(e.Detail, why)
	return Decision{Reason: why, Events: []boot.Event{e}}
}

// silent is no answer because something is wrong.
func (q question) silent(k boot.Kind, why string) Decision {
	e := q.event(k)
	e.Error = why
	return Decision{Reason: why, Events: []boot.Event{e}}
}

// answered closes a reply: it is cut to what the client takes, and what was
// seen and sent are its events.
func (q question) answered(r *Reply, why string, kinds ...boot.Kind) Decision {
	r.fit()
	if len(r.Dropped) > 0 {
		why = join(why, fmt.Sprintf("the client takes %d bytes: no room for the options %v", r.Limit, r.Dropped))
	}
	d := Decision{Reply: r, Reason: why}
	for _, k := range kinds {
		d.Events = append(d.Events, q.event(k))
	}
	last := &d.Events[len(d.Events)-1]
	last.File, last.Error = r.File, why
	if !r.Your.IsUnspecified() {
		last.Addr = r.Your
	}
	return d
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

package simulate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Firmware waits a second for an answer, then twice as long each time
// (RFC 2131, section 4.1, has four seconds; iPXE one).
const (
	firstWait = time.Second
	tries     = 6
)

// relay sends for all machines over one socket and hands out what comes back.
type relay struct {
	conn   *net.UDPConn
	addr   netip.Addr
	server netip.AddrPort

	mu      sync.Mutex
	waiting map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4
}

func newRelay(p Plan) (*relay, error) {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.Relay, 67)))
	if err != nil {
		return nil, fmt.Errorf("relaying DHCP from %s: %w", p.Relay, err)
	}
	r := &relay{conn: c, addr: p.Relay, server: netip.AddrPortFrom(p.Server, 67), waiting: map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4{}}
	if err := enlarge(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	go r.receive()
	return r, nil
}

func (r *relay) close() { r.conn.Close() }

func (r *relay) receive() {
	buf := make([]byte, 1500)
	for {
		n, err := r.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		m, err := dhcpv4.FromBytes(buf[:max(n, 0)])
		if err != nil {
			continue
		}
		r.mu.Lock()
		to := r.waiting[m.TransactionID]
		r.mu.Unlock()
		select {
		case to <- m:
		default:
		}
	}
}

// ask sends a message until it is answered.
func (r *relay) ask(m *dhcpv4.DHCPv4, want dhcpv4.MessageType, c *Counts) (*dhcpv4.DHCPv4, error) {
	answer := make(chan *dhcpv4.DHCPv4, 4)
	r.mu.Lock()
	r.waiting[m.TransactionID] = answer
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.waiting, m.TransactionID)
		r.mu.Unlock()
	}()
	for i := range tries {
		if i > 0 {
			c.Again++
		}
		if _, err := r.conn.WriteToUDPAddrPort(m.ToBytes(), r.server); err != nil {
			return nil, err
		}
		if a := await(answer, want, firstWait<<i); a != nil {
			c.Calls++
			c.Bytes += int64(len(a.ToBytes()))
			return a, nil
		}
	}
	return nil, fmt.Errorf("no %s came for %d messages", want, tries)
}

func await(answer <-chan *dhcpv4.DHCPv4, want dhcpv4.MessageType, patience time.Duration) *dhcpv4.DHCPv4 {
	end := time.NewTimer(patience)
	defer end.Stop()
	for {
		select {
		case a := <-answer:
			if a.MessageType() == want {
				return a
			}
		case <-end.C:
			return nil
		}
	}
}

// lease asks twice, as a boot does: iPXE first, then the kernel's initramfs.
func (m *machine) lease() error {
	ipxe := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
	}
	linux := []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("Linux ipconfig"))}
	for _, client := range [][]dhcpv4.Modifier{ipxe, linux} {
		if err := m.exchange(client); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) exchange(client []dhcpv4.Modifier) error {
	mac, err := net.ParseMAC(m.node.MAC)
	if err != nil {
		return err
	}
	client = append(client, dhcpv4.WithRelay(m.relay.addr.AsSlice()))
	discover, err := dhcpv4.NewDiscovery(mac, client...)
	if err != nil {
		return err
	}
	offer, err := m.relay.ask(discover, dhcpv4.MessageTypeOffer, &m.count)
	if err != nil {
		return err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, client...)
	if err != nil {
		return err
	}
	ack, err := m.relay.ask(request, dhcpv4.MessageTypeAck, &m.count)
	if err != nil {
		return err
	}
	if got, _ := netip.AddrFromSlice(ack.YourIPAddr.To4()); got != m.node.Addr {
		return fmt.Errorf("the server gave %s, the image says %s", got, m.node.Addr)
	}
	return nil
}

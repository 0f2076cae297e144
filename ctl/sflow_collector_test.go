package ctl

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCollector: a collector that comes and goes, and one that never reads.
func TestCollector(t *testing.T) {
	listen := func(at netip.AddrPort) *net.UDPConn {
		t.Helper()
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	there := listen(netip.MustParseAddrPort("127.0.0.1:0"))
	c := &collector{address: there.LocalAddr().(*net.UDPAddr).AddrPort()}
	c.send([]byte("not open"))
	if c.errors != 1 || c.sent != 0 {
		t.Fatalf("%+v", c)
	}
	c.open()
	defer c.close()
	if c.failed != nil || c.local != netip.MustParseAddr("127.0.0.1") {
		t.Fatalf("%+v", c)
	}

	// Nobody reads: sending goes on all the same, without waiting.
	began := time.Now()
	big := make([]byte, 1400)
	for range 10_000 {
		c.send(big)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("10000 datagrams took %s", took)
	}
	if c.failed != nil || c.errors != 1 || c.sent != 10_000 {
		t.Errorf("%+v", c)
	}

	// Nobody listens: that is told, though every second datagram goes out.
	there.Close()
	for range 10 {
		c.send(big)
	}
	if c.failed != unix.ECONNREFUSED || c.errors < 5 || c.conn == nil {
		t.Errorf("%+v", c)
	}
	// Somebody does again. It counts as failing for a while.
	there = listen(c.address)
	defer there.Close()
	c.send(big) // word of the last one
	failures := c.errors
	c.send(big)
	if c.errors != failures || c.failed == nil {
		t.Errorf("%+v", c)
	}
	c.at = c.at.Add(-failing)
	c.send(big)
	if c.failed != nil {
		t.Errorf("%+v", c)
	}
}
